#include "api/transfer.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/str.h"
#include "image/image.h"
#include "loop/loop.h"

#define STACK_SIZE_BYTES (512u << 10)

struct thread {
        struct api *api;
        void (*run)(void *arg);
        void (*done)(void *arg);
        void *arg;
};

static void thread_done(void *arg)
{
        auto_free struct thread *thread = arg;
        thread->api->transfers--;
        thread->done(thread->arg);
}

static void *thread_main(void *arg)
{
        struct thread *thread = arg;
        thread->run(thread->arg);
        loop_post(thread->api->loop, thread_done, thread);
        return NULL;
}

static int thread_start(struct thread *thread)
{
        pthread_attr_t attributes;
        pthread_t id;
        sigset_t all, saved;
        sigfillset(&all);
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, STACK_SIZE_BYTES);
        pthread_sigmask(SIG_SETMASK, &all, &saved);
        int code = pthread_create(&id, &attributes, thread_main, thread);
        pthread_sigmask(SIG_SETMASK, &saved, NULL);
        pthread_attr_destroy(&attributes);
        return -code;
}

int transfer_thread(struct api *api, void (*run)(void *arg), void (*done)(void *arg), void *arg,
                    struct err *err)
{
        if (api->transfers >= TRANSFERS_MAX)
                return err_plain(err, EAGAIN,
                                 "%u image transfers are under way already; try again later",
                                 api->transfers);
        struct thread *thread = new0(struct thread);
        *thread = (struct thread){ .api = api, .run = run, .done = done, .arg = arg };
        int r = thread_start(thread);
        if (r < 0) {
                free(thread);
                return err_set(err, -r, "start a thread");
        }
        api->transfers++;
        return 0;
}

static void transfer_begin(struct transfer *transfer)
{
        if (!transfer->begun && transfer->request)
                http_stream_begin(transfer->request, 200, "application/json");
        transfer->begun = true;
}

/* Gives what is pending to the server, unless the client has yet to read what it got. */
static void transfer_flush(struct transfer *transfer)
{
        if (transfer->waiting)
                return;
        pthread_mutex_lock(&transfer->lock);
        struct buf records = transfer->pending;
        transfer->pending = (struct buf){ 0 };
        pthread_mutex_unlock(&transfer->lock);
        if (records.size > 0 && transfer->request) {
                transfer_begin(transfer);
                transfer->waiting = http_stream_write(transfer->request, records.data,
                                                      records.size) > TRANSFER_PENDING_BYTES;
        }
        buf_finish(&records);
}

static void transfer_drained(void *arg)
{
        struct transfer *transfer = arg;
        transfer->waiting = false;
        transfer_flush(transfer);
}

static void transfer_posted(void *arg)
{
        struct transfer *transfer = arg;
        pthread_mutex_lock(&transfer->lock);
        transfer->posted = false;
        pthread_mutex_unlock(&transfer->lock);
        transfer_flush(transfer);
}

static void transfer_write(struct transfer *transfer, struct json_object *record, bool droppable)
{
        size_t length;
        const char *text = json_object_to_json_string_length(
                record, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
        pthread_mutex_lock(&transfer->lock);
        bool drop = droppable && transfer->pending.size > TRANSFER_PENDING_BYTES;
        if (!drop) {
                buf_append(&transfer->pending, text, length);
                buf_puts(&transfer->pending, "\r\n");
        }
        bool post = !drop && !transfer->posted;
        transfer->posted |= post;
        pthread_mutex_unlock(&transfer->lock);
        if (post)
                loop_post(transfer->api->loop, transfer_posted, transfer);
        json_object_put(record);
}

void transfer_record(struct transfer *transfer, struct json_object *record)
{
        transfer_write(transfer, record, false);
}

void transfer_event(void *arg, const struct image_event *event)
{
        struct transfer *transfer = arg;
        bool bar = event->total > 0 || event->current > 0;
        if (bar && transfer->quiet)
                return;
        struct json_object *record = json_object_new_object();
        put_string(record, "status", event->status);
        if (!str_empty(event->id)) {
                struct json_object *detail = put_object(record, "progressDetail");
                if (bar)
                        put_int(detail, "current", (int64_t)event->current);
                if (event->total > 0)
                        put_int(detail, "total", (int64_t)event->total);
                put_string(record, "id", event->id);
        }
        transfer_write(transfer, record, bar);
}

static void transfer_answer_failure(struct transfer *transfer)
{
        if (!transfer->begun) {
                api_fail(transfer->request, transfer->r, &transfer->err);
                return;
        }
        struct json_object *record = json_object_new_object();
        struct json_object *detail = put_object(record, "errorDetail");
        put_string(detail, "message", err_text(&transfer->err));
        put_string(record, "error", err_text(&transfer->err));
        stream_json(transfer->request, record);
        http_stream_end(transfer->request);
}

/* The thread's posts came before this one, so no flush is on its way any more,
 * but for those that `done` makes. */
static void transfer_ended(void *arg)
{
        struct transfer *transfer = arg;
        if (transfer->r >= 0 && transfer->done)
                transfer->done(transfer);
        if (transfer->posted) {
                loop_post(transfer->api->loop, transfer_ended, transfer);
                transfer->done = NULL;
                return;
        }
        transfer->waiting = false;
        transfer_flush(transfer);
        if (transfer->request) {
                http_request_on_close(transfer->request, NULL, NULL);
                http_stream_on_drain(transfer->request, NULL, NULL);
                if (transfer->r < 0) {
                        transfer_answer_failure(transfer);
                } else {
                        transfer_begin(transfer);
                        http_stream_end(transfer->request);
                }
        }
        if (transfer->finish)
                transfer->finish(transfer);
        buf_finish(&transfer->pending);
        pthread_mutex_destroy(&transfer->lock);
        free(transfer);
}

static void transfer_run(void *arg)
{
        struct transfer *transfer = arg;
        transfer->run(transfer);
}

static void transfer_closed(void *arg)
{
        struct transfer *transfer = arg;
        transfer->request = NULL;
        transfer->cancelled = true;
}

void transfer_submit(struct api *api, struct http_request *request, struct transfer *transfer)
{
        struct err err = { 0 };
        transfer->api = api;
        transfer->request = request;
        pthread_mutex_init(&transfer->lock, NULL);
        if (transfer_thread(api, transfer_run, transfer_ended, transfer, &err) < 0) {
                http_reply_error(request, 503, "%s", err_text(&err));
                if (transfer->finish)
                        transfer->finish(transfer);
                pthread_mutex_destroy(&transfer->lock);
                free(transfer);
                return;
        }
        http_request_on_close(request, transfer_closed, transfer);
        http_stream_on_drain(request, transfer_drained, transfer);
}
