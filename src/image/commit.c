/* Making an image visible: its record and its names, in one transaction. */
#include "base/clock.h"
#include "image/durable.h"
#include "image/image_store.h"

/* Blobs that other manifests of the same configuration need stay with it. */
static int join_blobs(struct image_store *st, const char *hex, char ***blobs, struct err *err)
{
        struct image_record old = { 0 };
        struct err cause = { 0 };
        int r = record_get(st->store, RECORD_IMAGE, hex, &image_record_shape, &old, NULL, &cause);
        if (r == -ENOENT || r == -EUCLEAN)
                return 0;
        if (r < 0) {
                if (err)
                        *err = cause;
                return r;
        }
        for (char **blob = old.blobs; blob && *blob; blob++)
                if (!strv_contains(*blobs, *blob))
                        strv_push(blobs, *blob);
        json_free(&image_record_shape, &old);
        return 0;
}

static int put_all(struct image_store *st, const struct image_record *record, const char *hex,
                   char *const *references, const struct digest *manifest, struct err *err)
{
        size_t length = strv_length(references);
        struct ref_record ref = { .image = record->id,
                                  .manifest = manifest ? (char *)manifest->text : NULL };
        auto_free char *ref_text = json_encode_text(&ref_record_shape, &ref, false);
        auto_free char *text = json_encode_text(&image_record_shape, record, false);
        auto_free char *key = xasprintf(RECORD_IMAGE "%s", hex);
        auto_strv keys = NULL;
        auto_free struct store_op *ops = xcalloc(length + 1, sizeof(*ops));
        ops[0] = (struct store_op){
                .kind = STORE_PUT, .key = key, .data = text, .size = strlen(text)
        };
        for (size_t i = 0; i < length; i++) {
                strv_push_take(&keys, xasprintf(RECORD_REF "%s", references[i]));
                ops[i + 1] = (struct store_op){ .kind = STORE_PUT,
                                                .key = keys[i],
                                                .data = ref_text,
                                                .size = strlen(ref_text) };
        }
        return store_txn(st->store, NULL, 0, ops, length + 1, NULL, err);
}

int image_commit(struct image_store *st, const struct image_record *record, char *const *references,
                 const struct digest *manifest, struct err *err)
{
        struct digest id;
        int r = digest_parse(record->id, &id, err);
        if (r < 0)
                return r;
        struct image_record made = *record;
        made.blobs = strv_copy(record->blobs);
        made.boot_id = st->boot_id;
        made.durable = false;
        if (made.pulled_ns == 0)
                made.pulled_ns = clock_realtime_ns();
        pthread_mutex_lock(&st->lock);
        r = join_blobs(st, digest_hex(&id), &made.blobs, err);
        if (r == 0)
                r = put_all(st, &made, digest_hex(&id), references, manifest, err);
        pthread_mutex_unlock(&st->lock);
        strv_free(made.blobs);
        if (r < 0)
                return err_wrap(err, "record image %s", record->id), r;
        durable_wanted(st->durable);
        return 0;
}
