#include "image/layer.h"

#include <fcntl.h>

#include "base/file.h"
#include "image/image_store.h"
#include "oci/image_spec.h"

#define READ_SIZE (256u << 10)

char *layer_path(struct image_store *st, const struct digest *chain_id)
{
        return xasprintf("%s/layers/%s/fs", st->root, digest_hex(chain_id));
}

bool layer_ready(struct image_store *st, const struct digest *chain_id, uint64_t *ret_size_bytes)
{
        struct layer_record record = { 0 };
        if (record_get(st->store, RECORD_LAYER, digest_hex(chain_id), &layer_record_shape, &record,
                       NULL, NULL) < 0)
                return false;
        auto_free char *fs = xasprintf("%s/fs", digest_hex(chain_id));
        bool ready = faccessat(st->layers_fd, fs, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
        if (ret_size_bytes)
                *ret_size_bytes = record.size_bytes;
        json_free(&layer_record_shape, &record);
        return ready;
}

int layer_short_path(struct image_store *st, const char *chain_id, char **ret, struct err *err)
{
        struct layer_record record = { 0 };
        struct digest digest;
        int r = digest_parse(chain_id, &digest, err);
        if (r < 0)
                return r;
        r = record_get(st->store, RECORD_LAYER, digest_hex(&digest), &layer_record_shape, &record,
                       NULL, err);
        if (r < 0)
                return err_wrap(err, "layer %s", chain_id), r;
        if (strchr(record.short_name, '/') || record.short_name[0] == '.')
                r = err_plain(err, EUCLEAN, "the state record of layer %s is damaged", chain_id);
        else
                *ret = xasprintf("%s/l/%s", st->root, record.short_name);
        json_free(&layer_record_shape, &record);
        return r;
}

uint64_t layer_delete(struct image_store *st, const struct digest *chain_id)
{
        struct layer_record record = { 0 };
        uint64_t size = 0;
        const char *hex = digest_hex(chain_id);
        if (record_get(st->store, RECORD_LAYER, hex, &layer_record_shape, &record, NULL, NULL) ==
            0) {
                size = record.size_bytes;
                if (!strchr(record.short_name, '/'))
                        unlinkat(st->links_fd, record.short_name, 0);
                json_free(&layer_record_shape, &record);
        }
        record_delete(st->store, RECORD_LAYER, hex, NULL);
        image_trash(st, st->layers_fd, hex, NULL);
        return size;
}

int layer_build_from_blob(struct image_store *st, const struct digest *blob,
                          const struct digest *diff_id, const atomic_bool *cancel,
                          void (*progress)(void *arg, uint64_t current, uint64_t total), void *arg,
                          struct layer_build **ret, struct err *err)
{
        auto_fd fd = -1;
        uint64_t size = 0, done = 0;
        int r = content_open_blob(st->content, blob, &fd, &size, err);
        if (r < 0)
                return r;
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        auto_layer_build build = NULL;
        r = layer_build_begin(st, COMPRESSION_AUTO, size, diff_id, cancel, &build, err);
        if (r < 0)
                return r;
        auto_free char *chunk = xmalloc(READ_SIZE);
        ssize_t n;
        while ((n = io_read_full(fd, chunk, READ_SIZE)) > 0) {
                if (cancel && atomic_load(cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                r = layer_build_write(build, chunk, (size_t)n, err);
                if (r < 0)
                        return r;
                done += (uint64_t)n;
                if (progress)
                        progress(arg, done, size);
        }
        if (n < 0)
                return err_set(err, (int)-n, "read blob %s", blob->text);
        r = layer_build_finish(build, NULL, err);
        if (r < 0)
                return r;
        *ret = take_ptr(build);
        return 0;
}

static int ensure_layer(struct image_store *st, const struct digest *chain, size_t index,
                        const char *diff_text, const char *blob_text, const atomic_bool *cancel,
                        struct err *err)
{
        auto_free char *key = xasprintf("layer %s", chain[index].text);
        int r = flight_begin(&st->flights, key, cancel, err);
        if (r < 0)
                return r;
        struct digest diff_id, blob;
        auto_layer_build build = NULL;
        if (!layer_ready(st, &chain[index], NULL)) {
                r = digest_parse(diff_text, &diff_id, err);
                if (r == 0)
                        r = digest_parse(blob_text, &blob, err);
                if (r == 0)
                        r = layer_build_from_blob(st, &blob, &diff_id, cancel, NULL, NULL, &build,
                                                  err);
                if (r == 0)
                        r = layer_build_commit(build, &chain[index], chain, index, &blob, err);
        }
        flight_end(&st->flights, key);
        return r;
}

int layers_ensure(struct image_store *st, char *const *diff_ids, char *const *layer_blobs,
                  const atomic_bool *cancel, struct err *err)
{
        size_t length = strv_length(diff_ids);
        if (length > IMAGE_LAYERS_MAX || length != strv_length(layer_blobs))
                return err_plain(err, EINVAL, "an image of %zu layers", length);
        auto_free struct digest *chain = xcalloc(length + 1, sizeof(*chain));
        for (size_t i = 0; i < length; i++) {
                int r = oci_chain_id(diff_ids, i + 1, &chain[i], err);
                if (r == 0)
                        r = ensure_layer(st, chain, i, diff_ids[i], layer_blobs[i], cancel, err);
                if (r < 0)
                        return err_wrap(err, "unpack layer %zu", i + 1), r;
        }
        return 0;
}
