#include "image/archive.h"

#include <pthread.h>
#include <signal.h>

#include "base/file.h"
#include "image/image_store.h"
#include "image/layer.h"
#include "image/stream.h"
#include "oci/image_spec.h"

#define READ_SIZE (64u << 10)

/* ---- source ------------------------------------------------------------ */

struct archive_source {
        int fd;
        const atomic_bool *cancel;
        struct stream *stream;
        pthread_t thread;
        bool running;
        struct err err; /* of the thread; read after the stream ended */
};

static int source_sink(void *arg, const void *data, size_t size, struct err *err)
{
        struct archive_source *source = arg;
        int r = stream_write(source->stream, data, size);
        return r < 0 ? err_plain(err, -r, "reading stopped") : 0;
}

static int source_decompress(struct archive_source *source, struct err *err)
{
        auto_decompressor d = NULL;
        int r = decompressor_create(COMPRESSION_AUTO, source_sink, source, &d, err);
        if (r < 0)
                return r;
        auto_free char *chunk = xmalloc(READ_SIZE);
        ssize_t n;
        while ((n = read(source->fd, chunk, READ_SIZE)) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_set(err, errno, "read the archive");
                if (source->cancel && atomic_load(source->cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                r = decompressor_write(d, chunk, (size_t)n, err);
                if (r < 0)
                        return r;
        }
        return decompressor_finish(d, err);
}

static void *source_run(void *arg)
{
        struct archive_source *source = arg;
        stream_end(source->stream, source_decompress(source, &source->err));
        return NULL;
}

int archive_source_open(int fd, const atomic_bool *cancel, struct archive_source **ret,
                        struct err *err)
{
        auto_archive_source source = new0(struct archive_source);
        sigset_t all, before;
        source->fd = fd;
        source->cancel = cancel;
        source->stream = stream_create();
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int r = pthread_create(&source->thread, NULL, source_run, source);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r != 0)
                return err_set(err, r, "start a thread to read the archive");
        source->running = true;
        *ret = take_ptr(source);
        return 0;
}

ssize_t archive_source_read(void *arg, const void **ret_block, struct err *err)
{
        struct archive_source *source = arg;
        ssize_t n = stream_read(source->stream, ret_block);
        if (n < 0 && err)
                *err = source->err;
        return n;
}

void archive_source_close(struct archive_source *source)
{
        if (!source)
                return;
        stream_abort(source->stream);
        if (source->running)
                pthread_join(source->thread, NULL);
        stream_destroy(source->stream);
        free(source);
}

/* ---- commit ------------------------------------------------------------ */

int archive_commit_blob(struct lease *lease, struct ingest *ingest, struct digest *ret,
                        struct err *err)
{
        struct digest digest;
        pthread_mutex_lock(&lease->st->lock);
        int r = ingest_commit(ingest, &digest, err);
        if (r == 0) {
                lease_add(lease, &digest, NULL);
                r = lease_save_locked(lease, err);
        }
        pthread_mutex_unlock(&lease->st->lock);
        if (r == 0)
                *ret = digest;
        return r;
}

/* The media type of a layer blob, by its first bytes. */
static int describe_layer(struct image_store *st, const struct digest *digest,
                          struct oci_descriptor *ret, struct err *err)
{
        char magic[COMPRESSION_MAGIC_SIZE];
        auto_fd fd = -1;
        uint64_t size;
        int r = content_open_blob(st->content, digest, &fd, &size, err);
        if (r < 0)
                return r;
        ssize_t n = io_read_full(fd, magic, sizeof(magic));
        if (n < 0)
                return err_set(err, (int)-n, "read blob %s", digest->text);
        enum compression compression = compression_detect(magic, (size_t)n);
        ret->media_type = xstrdup(compression == COMPRESSION_GZIP   ? OCI_MEDIA_LAYER_GZIP
                                  : compression == COMPRESSION_ZSTD ? OCI_MEDIA_LAYER_ZSTD
                                                                    : OCI_MEDIA_LAYER);
        ret->digest = xstrdup(digest->text);
        ret->size_bytes = (int64_t)size;
        return 0;
}

static int make_manifest(struct image_store *st, const struct archive_image *made,
                         const struct digest *config, char **ret_text, struct err *err)
{
        struct oci_manifest manifest = { .schema_version = 2 };
        int r = 0;
        manifest.media_type = xstrdup(OCI_MEDIA_MANIFEST);
        manifest.config.media_type = xstrdup(OCI_MEDIA_CONFIG);
        manifest.config.digest = xstrdup(config->text);
        manifest.config.size_bytes = (int64_t)made->config_size;
        manifest.layers = xcalloc(made->layers_length + 1, sizeof(*manifest.layers));
        for (size_t i = 0; r == 0 && i < made->layers_length; i++, manifest.layers_length++)
                r = describe_layer(st, &made->layers[i], &manifest.layers[i], err);
        if (r == 0)
                *ret_text = json_encode_text(&oci_manifest_shape, &manifest, false);
        oci_manifest_finish(&manifest);
        return r;
}

static void fill_record(const struct archive_image *made, const struct oci_image_config *config,
                        const struct digest *manifest, struct lease *lease,
                        struct image_record *record)
{
        strv_push(&record->blobs, manifest->text);
        strv_push(&record->blobs, record->id);
        for (size_t i = 0; i < made->layers_length; i++) {
                struct digest chain_id;
                strv_push(&record->blobs, made->layers[i].text);
                strv_push(&record->layer_blobs, made->layers[i].text);
                if (oci_chain_id(config->rootfs.diff_ids, i + 1, &chain_id, NULL) == 0) {
                        strv_push(&record->chain_ids, chain_id.text);
                        lease_add(lease, NULL, &chain_id);
                }
        }
}

static int write_parts(struct lease *lease, const struct archive_image *made,
                       const struct digest *config, struct digest *ret_manifest, struct err *err)
{
        struct image_store *st = lease->st;
        auto_free char *manifest = NULL;
        lease_add(lease, config, NULL);
        int r = lease_save(lease, err);
        if (r == 0)
                r = content_write(st->content, config, made->config, made->config_size, err);
        if (r < 0)
                return r;
        if (made->manifest) {
                *ret_manifest = *made->manifest;
                return 0;
        }
        r = make_manifest(st, made, config, &manifest, err);
        if (r < 0)
                return r;
        digest_bytes(manifest, strlen(manifest), ret_manifest);
        lease_add(lease, ret_manifest, NULL);
        r = lease_save(lease, err);
        return r < 0 ? r
                     : content_write(st->content, ret_manifest, manifest, strlen(manifest), err);
}

int archive_commit_image(struct lease *lease, const struct archive_image *made, struct image **ret,
                         struct err *err)
{
        struct image_store *st = lease->st;
        struct oci_image_config config = { 0 };
        struct digest id, manifest;
        int r = oci_image_config_parse(made->config, made->config_size, &config, err);
        if (r == 0 && strv_length(config.rootfs.diff_ids) != made->layers_length)
                r = err_plain(err, EBADMSG,
                              "the configuration tells of %zu layers, the archive "
                              "has %zu",
                              strv_length(config.rootfs.diff_ids), made->layers_length);
        if (r == 0) {
                digest_bytes(made->config, made->config_size, &id);
                r = write_parts(lease, made, &id, &manifest, err);
        }
        if (r == 0) {
                struct image_record record = { .id = id.text, .manifest = manifest.text };
                fill_record(made, &config, &manifest, lease, &record);
                r = lease_save(lease, err);
                if (r == 0)
                        r = layers_ensure(st, config.rootfs.diff_ids, record.layer_blobs,
                                          made->cancel, err);
                if (r == 0)
                        r = image_commit(st, &record, made->names, &manifest, err);
                strv_free(record.blobs);
                strv_free(record.layer_blobs);
                strv_free(record.chain_ids);
        }
        oci_image_config_finish(&config);
        return r == 0 && ret ? image_get(st, &id, ret, err) : r;
}
