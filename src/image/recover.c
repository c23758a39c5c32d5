#include "image/recover.h"

#include <fcntl.h>

#include "base/clock.h"
#include "image/image_store.h"
#include "image/layer.h"

/* A lease without an end belongs to a process that is dead. */
static int recover_leases(struct image_store *st, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int r = store_list(st->store, RECORD_LEASE, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct lease_record record = { 0 };
                const char *name = str_after(values[i].key, RECORD_LEASE);
                if (record_decode(&values[i], &lease_record_shape, &record, NULL) < 0) {
                        r = store_delete(st->store, values[i].key, err);
                } else if (record.expires_ns == 0) {
                        auto_free char *hash = xstrndup(name, strcspn(name, "."));
                        record.expires_ns = clock_realtime_ns() + st->lease_ttl_ns;
                        r = record_put(st->store, RECORD_LEASE, hash, &lease_record_shape, &record,
                                       err);
                        if (r == 0 && !streq(hash, name))
                                r = store_delete(st->store, values[i].key, err);
                }
                json_free(&lease_record_shape, &record);
        }
        store_values_free(values, length);
        return r;
}

static bool lost_power(const struct image_store *st, const char *boot_id, bool durable)
{
        return !durable && !streq(boot_id, st->boot_id);
}

/* Drops records without a directory and, after a power loss, those not synced.
 * `kept` gets the names of directories and links that stay. */
static int recover_layer_records(struct image_store *st, struct table *kept, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int r = store_list(st->store, RECORD_LAYER, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct layer_record record = { 0 };
                struct digest chain_id;
                const char *hex = str_after(values[i].key, RECORD_LAYER);
                auto_free char *fs = xasprintf("%s/fs", hex);
                bool good = record_decode(&values[i], &layer_record_shape, &record, NULL) == 0 &&
                            digest_parse(record.chain_id, &chain_id, NULL) == 0 &&
                            faccessat(st->layers_fd, fs, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
                if (!good) {
                        r = store_delete(st->store, values[i].key, err);
                } else if (lost_power(st, record.boot_id, record.durable)) {
                        layer_delete(st, &chain_id);
                } else {
                        table_put(kept, hex, kept);
                        table_put(kept, record.short_name, kept);
                }
                json_free(&layer_record_shape, &record);
        }
        store_values_free(values, length);
        return r;
}

static void drop_unknown(struct image_store *st, int dirfd, const struct table *kept)
{
        int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
        auto_strv gone = NULL;
        struct dirent *entry;
        while (dir && (entry = readdir(dir)))
                if (entry->d_name[0] != '.' && !table_get(kept, entry->d_name))
                        strv_push(&gone, entry->d_name);
        for (char **name = gone; name && *name; name++)
                image_trash(st, dirfd, *name, NULL);
}

static int drop_image(struct image_store *st, const struct image_record *record, struct err *err)
{
        struct store_value *refs = NULL;
        size_t length = 0;
        struct digest id;
        int r = digest_parse(record->id, &id, err);
        if (r == 0)
                r = store_list(st->store, RECORD_REF, &refs, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct ref_record ref = { 0 };
                if (record_decode(&refs[i], &ref_record_shape, &ref, NULL) < 0 ||
                    streq(ref.image, record->id))
                        r = store_delete(st->store, refs[i].key, err);
                json_free(&ref_record_shape, &ref);
        }
        store_values_free(refs, length);
        return r < 0 ? r : record_delete(st->store, RECORD_IMAGE, digest_hex(&id), err);
}

/* True where the blob is good; a bad one is deleted. */
static bool check_blob(struct image_store *st, const char *text)
{
        struct digest digest;
        if (digest_parse(text, &digest, NULL) < 0)
                return false;
        int r = content_verify(st->content, &digest, NULL, NULL);
        if (r == -EBADMSG)
                content_delete(st->content, &digest);
        return r == 0;
}

static int check_image(struct image_store *st, struct image_record *record, struct err *err)
{
        bool whole = true;
        for (char **blob = record->blobs; blob && *blob; blob++)
                whole = check_blob(st, *blob) && whole;
        if (!check_blob(st, record->id) || !check_blob(st, record->manifest)) {
                image_notice(st, "image %.19s was lost in a power failure; pull it again",
                             record->id);
                return drop_image(st, record, err);
        }
        if (!whole)
                image_notice(st, "image %.19s lost layers in a power failure; pull it again",
                             record->id);
        struct digest id;
        record->durable = true; /* what can be read now is on the disk */
        int r = digest_parse(record->id, &id, err);
        return r < 0 ? r
                     : record_put(st->store, RECORD_IMAGE, digest_hex(&id), &image_record_shape,
                                  record, err);
}

static int recover_images(struct image_store *st, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int r = store_list(st->store, RECORD_IMAGE, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct image_record record = { 0 };
                struct err cause = { 0 };
                if (record_decode(&values[i], &image_record_shape, &record, &cause) < 0)
                        image_notice(st, "%s", err_text(&cause));
                else if (lost_power(st, record.boot_id, record.durable))
                        r = check_image(st, &record, err);
                json_free(&image_record_shape, &record);
        }
        store_values_free(values, length);
        return r;
}

static int drop_nameless(void *arg, const struct digest *digest, const char *name,
                         uint64_t size_bytes, int64_t mtime_ns, struct err *err)
{
        struct image_store *st = arg;
        (void)size_bytes, (void)mtime_ns, (void)err;
        if (!digest_is_set(digest))
                content_delete_partial(st->content, name);
        return 0;
}

int image_recover(struct image_store *st, struct err *err)
{
        struct table kept = { 0 };
        int r = recover_leases(st, err);
        if (r == 0)
                r = recover_layer_records(st, &kept, err);
        if (r == 0) {
                drop_unknown(st, st->layers_fd, &kept);
                drop_unknown(st, st->links_fd, &kept);
                r = recover_images(st, err);
        }
        if (r == 0)
                r = content_walk(st->content, true, drop_nameless, st, err);
        table_finish(&kept);
        image_empty_trash(st);
        return r < 0 ? (err_wrap(err, "open image store '%s'", st->root), r) : 0;
}
