#include "cli/attachment.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/field.h"
#include "codec/json.h"

/* How long a daemon may take to come back while a container runs. */
#define RETURN_TIMEOUT_NS (30 * NS_PER_S)
#define RETURN_PAUSE_MS   50

void attachment_target(struct buf *target, const char *id, bool in, bool out, bool errors,
                       const char *detach_keys)
{
        target_set(target, "/containers/%s/attach", id);
        target_add(target, "stream", "1");
        target_add_flag(target, "stdin", in);
        target_add_flag(target, "stdout", out);
        target_add_flag(target, "stderr", errors);
        if (!str_empty(detach_keys))
                target_add(target, "detachKeys", detach_keys);
}

static void send_size(struct attachment *attachment, unsigned rows, unsigned columns)
{
        auto_buf target = { 0 };
        char number[16];
        target_set(&target, attachment->resize, attachment->id);
        snprintf(number, sizeof(number), "%u", rows);
        target_add(&target, "h", number);
        snprintf(number, sizeof(number), "%u", columns);
        target_add(&target, "w", number);
        /* A process that is gone cannot be resized: nothing to tell anybody. */
        daemon_call(attachment->cli, "POST", &target, NULL, NULL, NULL);
}

static void on_resize(void *arg, unsigned rows, unsigned columns)
{
        struct attachment *attachment = arg;
        if (rows == 0 && columns == 0)
                return;
        if (attachment->twitch)
                send_size(attachment, rows + 1, columns + 1);
        attachment->twitch = false;
        send_size(attachment, rows, columns);
}

static void on_signal(void *arg, int signo)
{
        struct attachment *attachment = arg;
        auto_buf target = { 0 };
        const char *name = sigabbrev_np(signo);
        char number[16];
        snprintf(number, sizeof(number), "%d", signo);
        target_set(&target, attachment->kill, attachment->id);
        target_add(&target, "signal", name ? name : number);
        daemon_call(attachment->cli, "POST", &target, NULL, NULL, NULL);
}

int attachment_open(struct attachment *attachment, const struct buf *target,
                    struct json_object *body, struct err *err)
{
        auto_exchange exchange = NULL;
        struct session *session = &attachment->session;
        session->resize = on_resize;
        session->signal = attachment->kill ? on_signal : NULL;
        session->forward = session->forward && attachment->kill;
        session->arg = attachment;
        session->fd = -1;
        int r = daemon_begin(attachment->cli, "POST", target, http_upgrade_headers, body, &exchange,
                             err);
        if (r == 0)
                r = http_exchange_hijack(exchange, &session->fd, &attachment->early, err);
        if (r == 0)
                r = session_prepare(session, err);
        return r;
}

int attachment_run(struct attachment *attachment, enum session_end *ret, struct err *err)
{
        attachment->session.early = attachment->early;
        int r = session_run(&attachment->session, ret, err);
        session_finish(&attachment->session);
        return r;
}

void attachment_finish(struct attachment *attachment)
{
        session_finish(&attachment->session);
        close_fd(&attachment->session.fd);
        buf_finish(&attachment->early);
}

/* --- waiting --- */

int container_wait_begin(struct cli *cli, const char *id, const char *condition,
                         struct http_exchange **ret, struct err *err)
{
        auto_buf target = { 0 };
        target_set(&target, "/containers/%s/wait", id);
        if (condition)
                target_add(&target, "condition", condition);
        return daemon_begin(cli, "POST", &target, NULL, NULL, ret, err);
}

static int wait_answer(struct http_exchange *exchange, int *ret, struct err *err)
{
        auto_json answer = NULL;
        int r = daemon_read_json(exchange, &answer, err);
        if (r < 0)
                return r;
        if (!answer)
                return err_plain(err, EPIPE, "the daemon closed the connection while waiting");
        const char *error = field_text(answer, "Error.Message");
        if (*error)
                return err_plain(err, EREMOTEIO, DAEMON_ERROR "%s", error);
        *ret = (int)field_int(answer, "StatusCode");
        return 0;
}

int container_wait_finish(struct cli *cli, const char *id, struct http_exchange *exchange, int *ret,
                          struct err *err)
{
        int64_t deadline_ns = clock_monotonic_ns() + RETURN_TIMEOUT_NS;
        int r = wait_answer(exchange, ret, err);
        while (r < 0 && r != -EREMOTEIO && r != -ENOENT && clock_monotonic_ns() < deadline_ns) {
                auto_exchange again = NULL;
                struct err ignored = { 0 };
                poll(NULL, 0, RETURN_PAUSE_MS);
                int began = container_wait_begin(cli, id, NULL, &again, &ignored);
                if (began == -ENOENT && cli->http_status == 404)
                        return err_plain(err, ENOENT,
                                         "container %s was removed while the daemon was away: its "
                                         "exit status is lost",
                                         id);
                if (began == 0)
                        r = wait_answer(again, ret, err);
        }
        return r;
}
