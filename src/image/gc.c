/* Garbage: what no image, lease or snapshot needs. Mark by the records alone, so
 * that no manifest is read; sweep under the lock, deleting trees afterwards. */
#include <fcntl.h>

#include "base/clock.h"
#include "image/image_store.h"
#include "image/layer.h"

struct marks {
        struct table blobs, chain_ids; /* digest text -> anything */
        struct table held;             /* layers that snapshots stand on */
};

static void marks_finish(struct marks *marks)
{
        table_finish(&marks->blobs);
        table_finish(&marks->chain_ids);
        table_finish(&marks->held);
}

static void mark(struct table *table, char *const *digests)
{
        for (; digests && *digests; digests++)
                table_put(table, *digests, table);
}

static int mark_images(struct image_store *st, struct marks *marks, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int r = store_list(st->store, RECORD_IMAGE, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct image_record record = { 0 };
                r = record_decode(&values[i], &image_record_shape, &record, err);
                mark(&marks->blobs, record.blobs);
                mark(&marks->blobs, record.layer_blobs);
                mark(&marks->chain_ids, record.chain_ids);
                json_free(&image_record_shape, &record);
        }
        store_values_free(values, length);
        return r;
}

static int mark_leases(struct image_store *st, struct marks *marks, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int64_t now = clock_realtime_ns();
        int r = store_list(st->store, RECORD_LEASE, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct lease_record record = { 0 };
                r = record_decode(&values[i], &lease_record_shape, &record, err);
                if (r == 0 && record.expires_ns != 0 && record.expires_ns < now) {
                        store_delete(st->store, values[i].key, NULL);
                } else {
                        mark(&marks->blobs, record.blobs);
                        mark(&marks->chain_ids, record.chain_ids);
                }
                json_free(&lease_record_shape, &record);
        }
        store_values_free(values, length);
        return r;
}

static int mark_snapshots(struct image_store *st, struct marks *marks, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int r = store_list(st->store, RECORD_SNAPSHOT, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct snapshot_record record = { 0 };
                r = record_decode(&values[i], &snapshot_record_shape, &record, err);
                mark(&marks->held, record.chain_ids);
                json_free(&snapshot_record_shape, &record);
        }
        store_values_free(values, length);
        return r;
}

/* ---- sweep ------------------------------------------------------------- */

struct sweep {
        struct image_store *st;
        struct marks *marks;
        struct image_gc_result *result;
};

static int sweep_blob(void *arg, const struct digest *digest, const char *name, uint64_t size_bytes,
                      int64_t mtime_ns, struct err *err)
{
        struct sweep *sweep = arg;
        (void)name, (void)mtime_ns, (void)size_bytes, (void)err;
        if (!table_get(&sweep->marks->blobs, digest->text)) {
                sweep->result->bytes += content_delete(sweep->st->content, digest);
                sweep->result->blobs++;
        }
        return 0;
}

/* Nameless ones belong to an import or load that runs: deleted at open only. */
static int sweep_partial(void *arg, const struct digest *digest, const char *name,
                         uint64_t size_bytes, int64_t mtime_ns, struct err *err)
{
        struct sweep *sweep = arg;
        (void)mtime_ns, (void)err;
        if (digest_is_set(digest) && !table_get(&sweep->marks->blobs, digest->text)) {
                content_delete_partial(sweep->st->content, name);
                sweep->result->bytes += size_bytes;
                sweep->result->partials++;
        }
        return 0;
}

static void sweep_layers(struct sweep *sweep, struct image_removal *removal)
{
        struct image_store *st = sweep->st;
        int fd = openat(st->layers_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
        auto_strv gone = NULL;
        struct dirent *entry;
        st->layers_held = false;
        while (dir && (entry = readdir(dir))) {
                auto_free char *chain_id = xasprintf("sha256:%s", entry->d_name);
                if (entry->d_name[0] == '.' || table_get(&sweep->marks->chain_ids, chain_id))
                        continue;
                if (table_get(&sweep->marks->held, chain_id))
                        st->layers_held = true;
                else
                        strv_push(&gone, chain_id);
        }
        for (char **chain_id = gone; chain_id && *chain_id; chain_id++) {
                struct digest digest;
                if (digest_parse(*chain_id, &digest, NULL) < 0)
                        continue;
                sweep->result->bytes += layer_delete(st, &digest);
                sweep->result->layers++;
                if (removal)
                        image_removal_add(removal, false, *chain_id);
        }
}

int image_sweep(struct image_store *st, struct image_removal *removal,
                struct image_gc_result *result, struct err *err)
{
        struct image_gc_result found = { 0 };
        struct marks marks = { 0 };
        struct sweep sweep = { .st = st, .marks = &marks, .result = &found };
        int r = mark_images(st, &marks, err);
        if (r == 0)
                r = mark_leases(st, &marks, err);
        if (r == 0)
                r = mark_snapshots(st, &marks, err);
        if (r == 0) {
                sweep_layers(&sweep, removal);
                r = content_walk(st->content, false, sweep_blob, &sweep, err);
        }
        if (r == 0)
                r = content_walk(st->content, true, sweep_partial, &sweep, err);
        marks_finish(&marks);
        if (removal)
                removal->reclaimed_bytes += found.bytes;
        if (result)
                *result = found;
        return r;
}

int image_gc(struct image_store *st, struct image_gc_result *ret, struct err *err)
{
        pthread_mutex_lock(&st->lock);
        int r = image_sweep(st, NULL, ret, err);
        pthread_mutex_unlock(&st->lock);
        image_empty_trash(st);
        return r < 0 ? (err_wrap(err, "collect unused images"), r) : 0;
}
