#include "image/durable.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "image/image_store.h"

#define SYNC_DELAY_S 2

struct durable {
        struct image_store *st;
        pthread_mutex_t mutex;
        pthread_cond_t wake;
        pthread_t thread;
        bool running, wanted, stop;
};

/* Lists before the sync, marks after it. */
static int mark(struct image_store *st, const struct json_shape *shape, size_t durable_offset,
                const struct store_value *values, size_t length, struct err *err)
{
        for (size_t i = 0; i < length; i++) {
                auto_free char *record = xcalloc(1, shape->size);
                struct err ignored = { 0 };
                if (record_decode(&values[i], shape, record, &ignored) < 0)
                        continue;
                bool *durable = (bool *)(record + durable_offset);
                int r = 0;
                if (!*durable) {
                        *durable = true;
                        auto_free char *text = json_encode_text(shape, record, false);
                        struct store_guard guard = { .key = values[i].key,
                                                     .mod_revision = values[i].mod_revision };
                        struct store_op op = { .kind = STORE_PUT,
                                               .key = values[i].key,
                                               .data = text,
                                               .size = strlen(text) };
                        r = store_txn(st->store, &guard, 1, &op, 1, NULL, err);
                }
                json_free(shape, record);
                if (r < 0 && r != -EAGAIN) /* changed meanwhile: the next round has it */
                        return r;
        }
        return 0;
}

int durable_sync(struct image_store *st, struct err *err)
{
        struct store_value *layers = NULL, *images = NULL;
        size_t layers_length = 0, images_length = 0;
        int r = store_list(st->store, RECORD_LAYER, &layers, &layers_length, NULL, err);
        if (r == 0)
                r = store_list(st->store, RECORD_IMAGE, &images, &images_length, NULL, err);
        if (r == 0 && syncfs(st->root_fd) < 0)
                r = err_set(err, errno, "sync '%s'", st->root);
        if (r == 0)
                r = mark(st, &layer_record_shape, offsetof(struct layer_record, durable), layers,
                         layers_length, err);
        if (r == 0)
                r = mark(st, &image_record_shape, offsetof(struct image_record, durable), images,
                         images_length, err);
        store_values_free(layers, layers_length);
        store_values_free(images, images_length);
        return r;
}

static void *durable_run(void *arg)
{
        struct durable *durable = arg;
        pthread_mutex_lock(&durable->mutex);
        while (!durable->stop) {
                if (!durable->wanted) {
                        pthread_cond_wait(&durable->wake, &durable->mutex);
                        continue;
                }
                /* What is asked for next is likely to want the disk for itself. */
                struct timespec until;
                clock_gettime(CLOCK_MONOTONIC, &until);
                until.tv_sec += SYNC_DELAY_S;
                while (!durable->stop &&
                       pthread_cond_timedwait(&durable->wake, &durable->mutex, &until) == 0)
                        ;
                if (durable->stop)
                        break;
                durable->wanted = false;
                pthread_mutex_unlock(&durable->mutex);
                struct err err = { 0 };
                if (durable_sync(durable->st, &err) < 0)
                        image_notice(durable->st, "images are not on disk yet: %s", err_text(&err));
                pthread_mutex_lock(&durable->mutex);
        }
        pthread_mutex_unlock(&durable->mutex);
        return NULL;
}

struct durable *durable_create(struct image_store *st)
{
        struct durable *durable = new0(struct durable);
        durable->st = st;
        pthread_mutex_init(&durable->mutex, NULL);
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&durable->wake, &attr);
        pthread_condattr_destroy(&attr);
        return durable;
}

void durable_wanted(struct durable *durable)
{
        if (!durable)
                return;
        pthread_mutex_lock(&durable->mutex);
        durable->wanted = true;
        if (!durable->running) {
                sigset_t all, before;
                sigfillset(&all);
                pthread_sigmask(SIG_SETMASK, &all, &before);
                durable->running = pthread_create(&durable->thread, NULL, durable_run, durable) ==
                                   0;
                pthread_sigmask(SIG_SETMASK, &before, NULL);
        }
        pthread_cond_signal(&durable->wake);
        pthread_mutex_unlock(&durable->mutex);
}

void durable_destroy(struct durable *durable)
{
        if (!durable)
                return;
        pthread_mutex_lock(&durable->mutex);
        durable->stop = true;
        pthread_cond_signal(&durable->wake);
        pthread_mutex_unlock(&durable->mutex);
        if (durable->running)
                pthread_join(durable->thread, NULL);
        pthread_cond_destroy(&durable->wake);
        pthread_mutex_destroy(&durable->mutex);
        free(durable);
}
