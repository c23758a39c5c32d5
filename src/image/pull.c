/* docker pull; see pull_internal.h for how it works. */
#include <signal.h>

#include "base/buf.h"
#include "base/clock.h"
#include "image/pull_internal.h"

#define TICK_NS (100 * NS_PER_MS)

/* ---- what to pull ------------------------------------------------------ */

static int take_bytes(void *arg, const void *data, size_t size, struct err *err)
{
        int r = buf_append(arg, data, size);
        return r < 0 ? err_plain(err, EFBIG, "larger than announced") : 0;
}

/* The configuration: from the store or the registry. */
static int get_config(struct pull *pull, struct err *err)
{
        struct image_store *st = pull->st;
        const struct oci_descriptor *descriptor = &pull->parsed.config;
        int r = digest_parse(descriptor->digest, &pull->config_digest, err);
        if (r < 0)
                return r;
        if ((uint64_t)descriptor->size_bytes > OCI_IMAGE_CONFIG_SIZE_MAX)
                return err_plain(err, EFBIG, "the image's configuration has %lld bytes",
                                 (long long)descriptor->size_bytes);
        uint64_t size = (uint64_t)descriptor->size_bytes;
        auto_buf text = { .limit_bytes = size + 1 };
        if (content_has(st->content, &pull->config_digest, size)) {
                auto_free char *data = NULL;
                size_t length;
                r = content_read(st->content, &pull->config_digest, OCI_IMAGE_CONFIG_SIZE_MAX,
                                 &data, &length, NULL);
                if (r == 0)
                        buf_append(&text, data, length);
                else
                        content_delete(st->content, &pull->config_digest); /* damaged */
        }
        if (text.size == 0) {
                r = registry_get_blob(pull->registry, &pull->config_digest, size, 0, take_bytes,
                                      &text, err);
                if (r == 0)
                        r = content_write(st->content, &pull->config_digest, buf_text(&text),
                                          text.size, err);
                if (r < 0)
                        return err_wrap(err, "image configuration"), r;
        }
        r = oci_image_config_parse(buf_text(&text), text.size, &pull->config, err);
        return r < 0 ? r : oci_image_check(&pull->parsed, &pull->config, err);
}

static int wanted_platform(struct pull *pull, struct oci_platform *ret, struct err *err)
{
        if (pull->platform)
                return oci_platform_parse(pull->platform, ret, err);
        oci_platform_host(ret);
        return 0;
}

/* An index leads to the manifest of our platform. */
static int follow_index(struct pull *pull, struct err *err)
{
        struct oci_index index = { 0 };
        struct oci_platform wanted = { 0 };
        const struct oci_descriptor *chosen;
        int r = oci_index_parse(pull->index.text, pull->index.size, pull->index.media_type, &index,
                                err);
        if (r < 0)
                return r;
        r = wanted_platform(pull, &wanted, err);
        if (r == 0)
                r = oci_index_select(&index, &wanted, &chosen, err);
        if (r == 0)
                r = registry_get_manifest(pull->registry, chosen->digest, &pull->manifest, err);
        oci_platform_finish(&wanted);
        oci_index_finish(&index);
        return r;
}

static int get_manifest(struct pull *pull, struct err *err)
{
        const struct oci_reference *reference = &pull->reference;
        const char *what = digest_is_set(&reference->digest) ? reference->digest.text
                                                             : reference->tag;
        enum oci_media_kind kind;
        int r = registry_get_manifest(pull->registry, what, &pull->manifest, err);
        if (r == 0)
                r = oci_manifest_kind(pull->manifest.text, pull->manifest.size,
                                      pull->manifest.media_type, &kind, err);
        if (r < 0)
                return r;
        if (kind == OCI_KIND_INDEX) {
                pull->index = pull->manifest;
                pull->manifest = (struct registry_manifest){ 0 };
                r = follow_index(pull, err);
                if (r < 0)
                        return r;
        }
        return oci_manifest_parse(pull->manifest.text, pull->manifest.size,
                                  pull->manifest.media_type, &pull->parsed, err);
}

/* Only where the user named one; otherwise what the registry has is what is wanted. */
static int check_platform(struct pull *pull, struct err *err)
{
        if (!pull->how->platform)
                return 0;
        struct oci_platform wanted = { 0 };
        int r = wanted_platform(pull, &wanted, err);
        if (r < 0)
                return r;
        const struct oci_platform offer = { .architecture = pull->config.architecture,
                                            .os = pull->config.os,
                                            .variant = pull->config.variant };
        if (oci_platform_score(&offer, &wanted) == 0) {
                char text[OCI_PLATFORM_TEXT_SIZE];
                oci_platform_format(&offer, text);
                r = err_plain(err, ENOENT,
                              "image is for %s, which does not match the specified platform: "
                              "wanted %s",
                              text, pull->how->platform);
        }
        oci_platform_finish(&wanted);
        return r;
}

static const struct digest *top_digest(const struct pull *pull)
{
        return pull->index.text ? &pull->index.digest : &pull->manifest.digest;
}

static int plan_layers(struct pull *pull, struct err *err)
{
        size_t length = pull->parsed.layers_length;
        if (length > IMAGE_LAYERS_MAX)
                return err_plain(err, EINVAL,
                                 "the image has %zu layers, more than the %d that an "
                                 "overlay holds",
                                 length, IMAGE_LAYERS_MAX);
        pull->layers = xcalloc(length + 1, sizeof(*pull->layers));
        pull->chain_ids = xcalloc(length + 1, sizeof(*pull->chain_ids));
        pull->layers_length = length;
        for (size_t i = 0; i < length; i++) {
                struct pull_layer *layer = &pull->layers[i];
                layer->size_bytes = (uint64_t)pull->parsed.layers[i].size_bytes;
                int r = digest_parse(pull->parsed.layers[i].digest, &layer->blob, err);
                if (r == 0)
                        r = digest_parse(pull->config.rootfs.diff_ids[i], &layer->diff_id, err);
                if (r == 0)
                        r = oci_chain_id(pull->config.rootfs.diff_ids, i + 1, &layer->chain_id,
                                         err);
                if (r < 0)
                        return r;
                pull->chain_ids[i] = layer->chain_id;
                image_short_id(&layer->blob, layer->short_id);
                layer->bar = (struct progress_bar){ .progress = &pull->progress,
                                                    .id = layer->short_id };
                lease_add(&pull->lease, &layer->blob, &layer->chain_id);
        }
        return 0;
}

/* ---- layers ------------------------------------------------------------ */

static void release(struct pull *pull, struct pull_layer *layer)
{
        if (layer->flight)
                flight_end(&pull->st->flights, layer->flight);
        free(take_ptr(layer->flight));
}

static int commit_layer(struct pull *pull, size_t index, struct err *err)
{
        struct pull_layer *layer = &pull->layers[index];
        if (layer->build) {
                int r = layer_build_commit(layer->build, &layer->chain_id, pull->chain_ids, index,
                                           &layer->blob, err);
                if (r < 0)
                        return err_wrap(err, "layer %s", layer->short_id), r;
                pthread_mutex_lock(&pull->mutex);
                layer_build_destroy(take_ptr(layer->build));
                pthread_mutex_unlock(&pull->mutex);
                progress_say(&pull->progress, layer->short_id, "Pull complete");
        }
        release(pull, layer);
        return 0;
}

/* Draws the bars of layers that are downloaded and still being unpacked. */
static void show_extraction(struct pull *pull)
{
        for (size_t i = 0; i < pull->layers_length; i++) {
                struct pull_layer *layer = &pull->layers[i];
                pthread_mutex_lock(&pull->mutex);
                bool extracting = layer->state == PULL_EXTRACTING && layer->build;
                uint64_t done = extracting ? layer_build_consumed(layer->build) : 0;
                pthread_mutex_unlock(&pull->mutex);
                if (extracting) {
                        layer->bar.status = "Extracting";
                        progress_bar_set(&layer->bar, done, layer->size_bytes);
                }
        }
}

static void wait_for_change(struct pull *pull)
{
        int64_t until = clock_monotonic_ns() + TICK_NS;
        struct timespec ts = { .tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S };
        pthread_cond_timedwait(&pull->changed, &pull->mutex, &ts);
        if (pull->how->cancel && atomic_load(pull->how->cancel))
                atomic_store(&pull->stop, true);
}

/* Commits bottom up until all are, or something failed and the workers are gone. */
static void supervise(struct pull *pull)
{
        size_t committed = 0;
        pthread_mutex_lock(&pull->mutex);
        for (;;) {
                bool stop = atomic_load(&pull->stop);
                bool ready = !stop && committed < pull->layers_length &&
                             pull->layers[committed].state == PULL_BUILT;
                if (ready) {
                        struct err err = { 0 };
                        pull->layers[committed].state = PULL_COMMITTED;
                        pthread_mutex_unlock(&pull->mutex);
                        int r = commit_layer(pull, committed++, &err);
                        if (r < 0)
                                pull_fail(pull, r, &err);
                        pthread_mutex_lock(&pull->mutex);
                        continue;
                }
                if (pull->working == 0 && (stop || committed == pull->layers_length))
                        break;
                wait_for_change(pull);
                pthread_mutex_unlock(&pull->mutex);
                show_extraction(pull);
                pthread_mutex_lock(&pull->mutex);
        }
        pthread_mutex_unlock(&pull->mutex);
}

static int run_workers(struct pull *pull, struct err *err)
{
        size_t wanted = pull->st->parallel_layers;
        if (wanted > pull->layers_length)
                wanted = pull->layers_length;
        pthread_t *threads = xcalloc(wanted + 1, sizeof(*threads));
        size_t started = 0;
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        for (; started < wanted; started++) {
                pthread_mutex_lock(&pull->mutex);
                pull->working++;
                pthread_mutex_unlock(&pull->mutex);
                int r = pthread_create(&threads[started], NULL, pull_worker, pull);
                if (r != 0) {
                        struct err failure = { 0 };
                        err_set(&failure, r, "start a thread to pull a layer");
                        pthread_mutex_lock(&pull->mutex);
                        pull->working--;
                        pthread_mutex_unlock(&pull->mutex);
                        pull_fail(pull, -r, &failure);
                        break;
                }
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        supervise(pull);
        for (size_t i = 0; i < started; i++)
                pthread_join(threads[i], NULL);
        free(threads);
        if (pull->failed < 0) {
                if (err)
                        *err = pull->err;
                return pull->failed;
        }
        return atomic_load(&pull->stop) ? err_plain(err, ECANCELED, "cancelled") : 0;
}

static int pull_layers(struct pull *pull, struct err *err)
{
        for (size_t i = 0; i < pull->layers_length; i++)
                if (!layer_ready(pull->st, &pull->layers[i].chain_id, NULL))
                        progress_say(&pull->progress, pull->layers[i].short_id, "Pulling fs layer");
        registry_set_cancel(pull->registry, &pull->stop);
        return run_workers(pull, err);
}

/* ---- the whole --------------------------------------------------------- */

static int record(struct pull *pull, bool *ret_new, struct err *err)
{
        struct image_store *st = pull->st;
        struct image_record record = { .id = pull->config_digest.text,
                                       .manifest = pull->manifest.digest.text };
        if (pull->index.text)
                strv_push(&record.blobs, pull->index.digest.text);
        strv_push(&record.blobs, pull->manifest.digest.text);
        strv_push(&record.blobs, pull->config_digest.text);
        for (size_t i = 0; i < pull->layers_length; i++) {
                strv_push(&record.blobs, pull->layers[i].blob.text);
                strv_push(&record.layer_blobs, pull->layers[i].blob.text);
                strv_push(&record.chain_ids, pull->chain_ids[i].text);
        }
        auto_strv names = NULL;
        auto_free char *name = oci_reference_name(&pull->reference);
        if (!digest_is_set(&pull->reference.digest))
                strv_push_take(&names, xasprintf("%s:%s", name, pull->reference.tag));
        strv_push_take(&names, xasprintf("%s@%s", name, top_digest(pull)->text));

        struct ref_record old = { 0 };
        *ret_new = record_get(st->store, RECORD_REF, names[0], &ref_record_shape, &old, NULL,
                              NULL) < 0 ||
                   !streq(old.image, record.id) || !streq(old.manifest, top_digest(pull)->text);
        json_free(&ref_record_shape, &old);
        int r = image_commit(st, &record, names, top_digest(pull), err);
        strv_free(record.blobs);
        strv_free(record.layer_blobs);
        strv_free(record.chain_ids);
        return r;
}

static int write_manifests(struct pull *pull, struct err *err)
{
        struct image_store *st = pull->st;
        int r = content_write(st->content, &pull->manifest.digest, pull->manifest.text,
                              pull->manifest.size, err);
        if (r == 0 && pull->index.text)
                r = content_write(st->content, &pull->index.digest, pull->index.text,
                                  pull->index.size, err);
        return r;
}

static void lease_manifests(struct pull *pull)
{
        struct digest config;
        lease_add(&pull->lease, &pull->manifest.digest, NULL);
        if (pull->index.text)
                lease_add(&pull->lease, &pull->index.digest, NULL);
        if (digest_parse(pull->parsed.config.digest, &config, NULL) == 0)
                lease_add(&pull->lease, &config, NULL);
}

static int pull_all(struct pull *pull, struct err *err)
{
        int r = get_manifest(pull, err);
        if (r < 0)
                return r;
        lease_manifests(pull);
        r = lease_save(&pull->lease, err);
        if (r == 0)
                r = get_config(pull, err);
        if (r == 0)
                r = check_platform(pull, err);
        if (r == 0)
                r = plan_layers(pull, err);
        if (r == 0)
                r = lease_save(&pull->lease, err);
        if (r == 0)
                r = pull_layers(pull, err);
        if (r == 0)
                r = write_manifests(pull, err);
        if (r < 0)
                return r;
        bool fresh;
        r = record(pull, &fresh, err);
        if (r < 0)
                return r;
        auto_free char *familiar = oci_reference_familiar(&pull->reference);
        progress_say(&pull->progress, NULL, "Digest: %s", top_digest(pull)->text);
        progress_say(&pull->progress, NULL, "Status: %s %s",
                     fresh ? "Downloaded newer image for" : "Image is up to date for", familiar);
        return 0;
}

static void pull_finish(struct pull *pull)
{
        for (size_t i = 0; i < pull->layers_length; i++) {
                layer_build_destroy(pull->layers[i].build);
                release(pull, &pull->layers[i]);
        }
        free(pull->layers);
        free(pull->chain_ids);
        registry_close(pull->registry);
        registry_manifest_finish(&pull->index);
        registry_manifest_finish(&pull->manifest);
        oci_manifest_finish(&pull->parsed);
        oci_image_config_finish(&pull->config);
        oci_reference_finish(&pull->reference);
        progress_finish(&pull->progress);
        pthread_cond_destroy(&pull->changed);
        pthread_mutex_destroy(&pull->mutex);
}

/* What an interrupted pull got so far is kept for the next attempt; what a wrong
 * answer or a full disk left is not. */
static bool worth_keeping(int r)
{
        return r == -ECANCELED || r == -ETIMEDOUT || r == -ECONNREFUSED || r == -EHOSTUNREACH ||
               r == -EPIPE || r == -EPROTO || r == -ECONNRESET || r == -EAGAIN || r == -EACCES;
}

static int pull_begin(struct pull *pull, const char *reference, struct err *err)
{
        pthread_condattr_t attr;
        pthread_mutex_init(&pull->mutex, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&pull->changed, &attr);
        pthread_condattr_destroy(&attr);
        progress_init(&pull->progress, &pull->how->progress);
        pull->platform = pull->how->platform ? pull->how->platform : pull->st->default_platform;
        int r = oci_reference_parse(reference, &pull->reference, err);
        if (r < 0)
                return r;
        r = registry_open(pull->st->registry, &pull->reference, pull->how->auth, REGISTRY_PULL,
                          pull->how->cancel, &pull->registry, err);
        if (r < 0)
                return r;
        auto_free char *key = xasprintf("pull %s %s", reference,
                                        pull->platform ? pull->platform : "");
        return lease_begin(pull->st, key, &pull->lease, err);
}

int image_pull(struct image_store *st, const char *reference, const struct image_transfer *how,
               struct image **ret, struct err *err)
{
        static const struct image_transfer anonymous;
        struct pull pull = { .st = st, .how = how ? how : &anonymous };
        int r = pull_begin(&pull, reference, err);
        if (r == 0) {
                auto_free char *name = xstrdup(pull.reference.path);
                const char *what = digest_is_set(&pull.reference.digest)
                                           ? pull.reference.digest.text
                                           : pull.reference.tag;
                progress_say(&pull.progress, what, "Pulling from %s", name);
                r = pull_all(&pull, err);
        }
        struct digest id = pull.config_digest;
        bool dropped = pull.lease.record.blobs && r < 0 && !worth_keeping(r);
        pull_finish(&pull);
        lease_end(&pull.lease, r == 0 || dropped || !pull.lease.record.blobs);
        if (dropped)
                image_gc(st, NULL, NULL);
        if (r < 0)
                return r;
        return ret ? image_get(st, &id, ret, err) : 0;
}
