/* docker push: layers in parallel, each looked for, mounted or uploaded; then the
 * configuration and the manifest. */
#include <inttypes.h>
#include <signal.h>

#include "base/clock.h"
#include "image/image_store.h"
#include "image/progress.h"
#include "image/registry.h"
#include "oci/image_spec.h"

#define TICK_NS (100 * NS_PER_MS)

struct push_layer {
        struct digest blob;
        uint64_t size_bytes;
        char short_id[IMAGE_SHORT_SIZE]; /* of the diff id, as docker shows it */
        struct progress_bar bar;
};

struct push {
        struct image_store *st;
        const struct image_transfer *how;
        struct oci_reference reference;
        struct registry *registry;
        struct progress progress;
        atomic_bool stop;

        char *manifest_text;
        size_t manifest_size;
        struct digest manifest_digest;
        struct oci_manifest manifest;
        struct push_layer *layers;
        size_t layers_length;

        pthread_mutex_t mutex;
        pthread_cond_t changed;
        size_t next, working;
        int failed;
        struct err err;
};

/* ---- one blob ---------------------------------------------------------- */

static void pushed_bytes(void *arg, uint64_t sent_bytes)
{
        struct push_layer *layer = arg;
        progress_bar_set(&layer->bar, sent_bytes, layer->size_bytes);
}

/* Repositories of the same registry that had the blob once, by our own names. */
static char **mount_sources(struct push *push, const struct digest *blob)
{
        char **sources = NULL;
        struct store_value *refs = NULL;
        size_t length = 0;
        if (store_list(push->st->store, RECORD_REF, &refs, &length, NULL, NULL) < 0)
                return NULL;
        for (size_t i = 0; i < length; i++) {
                struct ref_record ref = { 0 };
                struct image_record record = { 0 };
                auto_reference reference = { 0 };
                struct digest id;
                /* A digest name is what a pull or push left: the registry has it. */
                bool candidate = oci_reference_parse_name(str_after(refs[i].key, RECORD_REF),
                                                          &reference, NULL) == 0 &&
                                 digest_is_set(&reference.digest) &&
                                 streq(reference.domain, push->reference.domain) &&
                                 !streq(reference.path, push->reference.path) &&
                                 record_decode(&refs[i], &ref_record_shape, &ref, NULL) == 0 &&
                                 digest_parse(ref.image, &id, NULL) == 0 &&
                                 record_get(push->st->store, RECORD_IMAGE, digest_hex(&id),
                                            &image_record_shape, &record, NULL, NULL) == 0;
                if (candidate && strv_contains(record.blobs, blob->text) &&
                    !strv_contains(sources, reference.path))
                        strv_push(&sources, reference.path);
                json_free(&ref_record_shape, &ref);
                json_free(&image_record_shape, &record);
        }
        store_values_free(refs, length);
        return sources;
}

/* 1 mounted (and said so), 0 not. */
static int try_mount(struct push *push, struct push_layer *layer, struct err *err)
{
        auto_strv sources = mount_sources(push, &layer->blob);
        for (char **source = sources; source && *source; source++) {
                int r = registry_mount_blob(push->registry, &layer->blob, *source, err);
                if (r != 0) {
                        if (r > 0)
                                progress_say(&push->progress, layer->short_id, "Mounted from %s",
                                             *source);
                        return r;
                }
        }
        return 0;
}

static int upload(struct push *push, struct push_layer *layer, struct err *err)
{
        auto_fd fd = -1;
        uint64_t size;
        int r = content_open_blob(push->st->content, &layer->blob, &fd, &size, err);
        if (r < 0)
                return r;
        layer->bar.status = "Pushing";
        layer->size_bytes = size;
        r = registry_put_blob(push->registry, &layer->blob, fd, size, pushed_bytes, layer, err);
        if (r == 0)
                progress_say(&push->progress, layer->short_id, "Pushed");
        return r;
}

static int push_layer(struct push *push, struct push_layer *layer, struct err *err)
{
        int r = registry_has_blob(push->registry, &layer->blob, err);
        if (r > 0) {
                progress_say(&push->progress, layer->short_id, "Layer already exists");
                return 0;
        }
        if (r == 0)
                r = try_mount(push, layer, err);
        if (r == 0)
                r = upload(push, layer, err);
        return r < 0 ? r : 0;
}

/* ---- workers ----------------------------------------------------------- */

static void push_fail(struct push *push, int r, const struct err *err)
{
        pthread_mutex_lock(&push->mutex);
        if (push->failed == 0) {
                push->failed = r;
                push->err = *err;
        }
        atomic_store(&push->stop, true);
        pthread_mutex_unlock(&push->mutex);
}

static struct push_layer *take_layer(struct push *push)
{
        struct push_layer *layer = NULL;
        pthread_mutex_lock(&push->mutex);
        if (!atomic_load(&push->stop) && push->next < push->layers_length)
                layer = &push->layers[push->next++];
        pthread_mutex_unlock(&push->mutex);
        return layer;
}

static void *push_worker(void *arg)
{
        struct push *push = arg;
        struct push_layer *layer;
        while ((layer = take_layer(push))) {
                struct err err = { 0 };
                int r = push_layer(push, layer, &err);
                if (r < 0) {
                        if (r != -ECANCELED)
                                err_wrap(&err, "layer %s", layer->short_id);
                        push_fail(push, r, &err);
                }
        }
        pthread_mutex_lock(&push->mutex);
        push->working--;
        pthread_cond_broadcast(&push->changed);
        pthread_mutex_unlock(&push->mutex);
        return NULL;
}

static void wait_for_workers(struct push *push)
{
        pthread_mutex_lock(&push->mutex);
        while (push->working > 0) {
                int64_t until = clock_monotonic_ns() + TICK_NS;
                struct timespec ts = { .tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S };
                pthread_cond_timedwait(&push->changed, &push->mutex, &ts);
                if (push->how->cancel && atomic_load(push->how->cancel))
                        atomic_store(&push->stop, true);
        }
        pthread_mutex_unlock(&push->mutex);
}

static int push_layers(struct push *push, struct err *err)
{
        size_t wanted = push->st->parallel_layers, started = 0;
        if (wanted > push->layers_length)
                wanted = push->layers_length;
        pthread_t *threads = xcalloc(wanted + 1, sizeof(*threads));
        sigset_t all, before;
        registry_set_cancel(push->registry, &push->stop);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        push->working = wanted;
        for (; started < wanted; started++) {
                int r = pthread_create(&threads[started], NULL, push_worker, push);
                if (r != 0) {
                        struct err failure = { 0 };
                        err_set(&failure, r, "start a thread to push a layer");
                        push_fail(push, -r, &failure);
                        pthread_mutex_lock(&push->mutex);
                        push->working -= wanted - started;
                        pthread_mutex_unlock(&push->mutex);
                        break;
                }
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        wait_for_workers(push);
        for (size_t i = 0; i < started; i++)
                pthread_join(threads[i], NULL);
        free(threads);
        registry_set_cancel(push->registry, push->how->cancel);
        if (push->failed < 0) {
                if (err)
                        *err = push->err;
                return push->failed;
        }
        return atomic_load(&push->stop) ? err_plain(err, ECANCELED, "cancelled") : 0;
}

/* ---- the whole --------------------------------------------------------- */

static int push_config(struct push *push, struct err *err)
{
        struct digest digest;
        auto_fd fd = -1;
        uint64_t size;
        int r = digest_parse(push->manifest.config.digest, &digest, err);
        if (r == 0)
                r = registry_has_blob(push->registry, &digest, err);
        if (r != 0)
                return r < 0 ? r : 0;
        r = content_open_blob(push->st->content, &digest, &fd, &size, err);
        if (r == 0)
                r = registry_put_blob(push->registry, &digest, fd, size, NULL, NULL, err);
        return r;
}

static int plan(struct push *push, const struct image *image, struct err *err)
{
        int r = content_read(push->st->content, &image->manifest, OCI_MANIFEST_SIZE_MAX,
                             &push->manifest_text, &push->manifest_size, err);
        if (r == 0)
                r = oci_manifest_parse(push->manifest_text, push->manifest_size, NULL,
                                       &push->manifest, err);
        if (r < 0)
                return r;
        push->manifest_digest = image->manifest;
        push->layers_length = push->manifest.layers_length;
        push->layers = xcalloc(push->layers_length + 1, sizeof(*push->layers));
        char *const *diff_ids = image->spec.rootfs.diff_ids;
        for (size_t i = 0; i < push->layers_length; i++) {
                struct push_layer *layer = &push->layers[i];
                struct digest shown;
                r = digest_parse(push->manifest.layers[i].digest, &layer->blob, err);
                if (r < 0)
                        return r;
                shown = layer->blob;
                if (i < strv_length(diff_ids))
                        digest_parse(diff_ids[i], &shown, NULL);
                image_short_id(&shown, layer->short_id);
                layer->bar = (struct progress_bar){ .progress = &push->progress,
                                                    .id = layer->short_id };
                progress_say(&push->progress, layer->short_id, "Preparing");
        }
        return 0;
}

/* The registry knows it by this digest now; so do we. */
static int remember(struct push *push, const struct image *image, struct err *err)
{
        auto_free char *name = oci_reference_name(&push->reference);
        auto_free char *canonical = xasprintf("%s@%s", name, push->manifest_digest.text);
        struct ref_record ref = { .image = (char *)image->id.text,
                                  .manifest = push->manifest_digest.text };
        pthread_mutex_lock(&push->st->lock);
        int r = record_put(push->st->store, RECORD_REF, canonical, &ref_record_shape, &ref, err);
        pthread_mutex_unlock(&push->st->lock);
        return r;
}

static int push_all(struct push *push, const struct image *image, struct err *err)
{
        int r = plan(push, image, err);
        if (r == 0)
                r = push_layers(push, err);
        if (r == 0)
                r = push_config(push, err);
        if (r == 0)
                r = registry_put_manifest(push->registry, push->reference.tag,
                                          push->manifest.media_type, push->manifest_text,
                                          push->manifest_size, err);
        if (r == 0)
                r = remember(push, image, err);
        if (r == 0)
                progress_say(&push->progress, NULL, "%s: digest: %s size: %zu", push->reference.tag,
                             push->manifest_digest.text, push->manifest_size);
        return r;
}

static void push_finish(struct push *push)
{
        free(push->layers);
        free(push->manifest_text);
        oci_manifest_finish(&push->manifest);
        registry_close(push->registry);
        oci_reference_finish(&push->reference);
        progress_finish(&push->progress);
        pthread_cond_destroy(&push->changed);
        pthread_mutex_destroy(&push->mutex);
}

static int push_begin(struct push *push, const char *reference, struct image **ret_image,
                      struct err *err)
{
        pthread_condattr_t attr;
        pthread_mutex_init(&push->mutex, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&push->changed, &attr);
        pthread_condattr_destroy(&attr);
        progress_init(&push->progress, &push->how->progress);
        int r = oci_reference_parse(reference, &push->reference, err);
        if (r < 0)
                return r;
        auto_free char *name = oci_reference_name(&push->reference);
        progress_say(&push->progress, NULL, "The push refers to repository [%s]", name);
        if (digest_is_set(&push->reference.digest))
                return err_plain(err, EINVAL, "cannot push a digest reference");
        bool by_id;
        struct digest id;
        r = image_find(push->st, reference, &id, &by_id, NULL);
        if (r < 0 || by_id) {
                auto_free char *repository = oci_reference_familiar_name(&push->reference);
                return err_plain(err, ENOENT, "An image does not exist locally with the tag: %s",
                                 repository);
        }
        r = image_get(push->st, &id, ret_image, err);
        return r < 0 ? r
                     : registry_open(push->st->registry, &push->reference, push->how->auth,
                                     REGISTRY_PUSH, push->how->cancel, &push->registry, err);
}

int image_push(struct image_store *st, const char *reference, const struct image_transfer *how,
               struct digest *ret_digest, struct err *err)
{
        static const struct image_transfer anonymous;
        struct push push = { .st = st, .how = how ? how : &anonymous };
        auto_image image = NULL;
        int r = push_begin(&push, reference, &image, err);
        if (r == 0)
                r = push_all(&push, image, err);
        if (r == 0 && ret_digest)
                *ret_digest = push.manifest_digest;
        push_finish(&push);
        return r;
}

int image_login(struct image_store *st, const struct registry_auth *auth, struct err *err)
{
        return registry_login(st->registry, auth, err);
}
