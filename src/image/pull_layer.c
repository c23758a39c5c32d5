/* Workers of a pull: download and unpack one layer after another. */
#include "base/clock.h"
#include "image/pull_internal.h"

void pull_fail(struct pull *pull, int r, const struct err *err)
{
        pthread_mutex_lock(&pull->mutex);
        if (pull->failed == 0) {
                pull->failed = r;
                pull->err = *err;
        }
        atomic_store(&pull->stop, true);
        pthread_cond_broadcast(&pull->changed);
        pthread_mutex_unlock(&pull->mutex);
}

void pull_set_state(struct pull *pull, struct pull_layer *layer, enum pull_state state)
{
        pthread_mutex_lock(&pull->mutex);
        layer->state = state;
        pthread_cond_broadcast(&pull->changed);
        pthread_mutex_unlock(&pull->mutex);
}

/* One download. */
struct download {
        struct pull_layer *layer;
        struct ingest *ingest;
        struct layer_build *build; /* NULL: only the blob is wanted */
};

static int download_replayed(void *arg, const void *data, size_t size, struct err *err)
{
        struct download *download = arg;
        return download->build ? layer_build_write(download->build, data, size, err) : 0;
}

static int download_sink(void *arg, const void *data, size_t size, struct err *err)
{
        struct download *download = arg;
        int r = ingest_write(download->ingest, data, size, err);
        if (r < 0)
                return r;
        progress_bar_set(&download->layer->bar, ingest_offset(download->ingest),
                         download->layer->size_bytes);
        return download->build ? layer_build_write(download->build, data, size, err) : 0;
}

/* What an interrupted network leaves is worth keeping; what is wrong is not. */
static bool is_interruption(int r)
{
        return r == -ECANCELED || r == -ETIMEDOUT || r == -ECONNREFUSED || r == -EHOSTUNREACH ||
               r == -EPIPE || r == -EPROTO || r == -ECONNRESET || r == -EAGAIN || r == -EACCES;
}

static int download(struct pull *pull, struct pull_layer *layer, bool unpack, bool *ret_resumed,
                    struct err *err)
{
        struct image_store *st = pull->st;
        uint64_t offset = 0;
        auto_ingest ingest = NULL;
        auto_layer_build build = NULL;
        int r = ingest_begin(st->content, &layer->blob, layer->size_bytes, &ingest, &offset, err);
        if (r == 0 && unpack)
                r = layer_build_begin(st, COMPRESSION_AUTO, layer->size_bytes, &layer->diff_id,
                                      &pull->stop, &build, err);
        if (r < 0)
                return r;
        *ret_resumed = offset > 0;
        struct download download = { .layer = layer, .ingest = ingest, .build = build };
        layer->bar.status = "Downloading";
        if (offset > 0)
                r = ingest_replay(ingest, download_replayed, &download, err);
        if (r == 0)
                r = registry_get_blob(pull->registry, &layer->blob, layer->size_bytes, offset,
                                      download_sink, &download, err);
        if (r == 0) {
                progress_say(&pull->progress, layer->short_id, "Verifying Checksum");
                r = ingest_commit(ingest, NULL, err);
        } else if (!is_interruption(r)) {
                content_delete_partial(st->content, digest_hex(&layer->blob));
        }
        if (r < 0)
                return r;
        progress_say(&pull->progress, layer->short_id, "Download complete");
        if (build) {
                pthread_mutex_lock(&pull->mutex);
                layer->build = build;
                layer->state = PULL_EXTRACTING;
                pthread_mutex_unlock(&pull->mutex);
                r = layer_build_finish(build, NULL, err);
                build = NULL; /* the layer's now */
        }
        return r;
}

static void extracted(void *arg, uint64_t current, uint64_t total)
{
        struct pull_layer *layer = arg;
        progress_bar_set(&layer->bar, current, total);
}

/* The blob's flight is held. */
static int obtain_held(struct pull *pull, struct pull_layer *layer, struct err *err)
{
        struct image_store *st = pull->st;
        bool ready = layer_ready(st, &layer->chain_id, NULL);
        if (content_has(st->content, &layer->blob, layer->size_bytes)) {
                if (ready) {
                        progress_say(&pull->progress, layer->short_id, "Already exists");
                        return 0;
                }
                layer->bar.status = "Extracting";
                struct layer_build *build = NULL;
                int r = layer_build_from_blob(st, &layer->blob, &layer->diff_id, &pull->stop,
                                              extracted, layer, &build, err);
                pthread_mutex_lock(&pull->mutex);
                layer->build = build;
                pthread_mutex_unlock(&pull->mutex);
                return r;
        }
        bool resumed = false;
        int r = download(pull, layer, !ready, &resumed, err);
        if (r == -EBADMSG && resumed && !layer->build) {
                /* What was left of an earlier attempt may be at fault. */
                content_delete_partial(st->content, digest_hex(&layer->blob));
                r = download(pull, layer, !ready, &resumed, err);
        }
        return r;
}

static int obtain(struct pull *pull, struct pull_layer *layer, struct err *err)
{
        struct image_store *st = pull->st;
        auto_free char *flight = xasprintf("layer %s", layer->chain_id.text);
        int r = flight_begin(&st->flights, flight, &pull->stop, err);
        if (r < 0)
                return r;
        layer->flight = take_ptr(flight);
        auto_free char *blob = xasprintf("blob %s", layer->blob.text);
        r = flight_begin(&st->flights, blob, &pull->stop, err);
        if (r < 0)
                return r;
        r = obtain_held(pull, layer, err);
        flight_end(&st->flights, blob);
        return r;
}

static struct pull_layer *take_layer(struct pull *pull)
{
        struct pull_layer *layer = NULL;
        pthread_mutex_lock(&pull->mutex);
        if (!atomic_load(&pull->stop) && pull->next < pull->layers_length) {
                layer = &pull->layers[pull->next++];
                layer->state = PULL_BUSY;
        }
        pthread_mutex_unlock(&pull->mutex);
        return layer;
}

void *pull_worker(void *arg)
{
        struct pull *pull = arg;
        struct pull_layer *layer;
        while ((layer = take_layer(pull))) {
                struct err err = { 0 };
                int r = obtain(pull, layer, &err);
                if (r < 0) {
                        if (r != -ECANCELED)
                                err_wrap(&err, "layer %s", layer->short_id);
                        pull_fail(pull, r, &err);
                } else {
                        pull_set_state(pull, layer, PULL_BUILT);
                }
        }
        pthread_mutex_lock(&pull->mutex);
        pull->working--;
        pthread_cond_broadcast(&pull->changed);
        pthread_mutex_unlock(&pull->mutex);
        return NULL;
}
