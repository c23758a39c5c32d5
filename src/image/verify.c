/* Looking after what is stored: image_verify, image_usage, image_shared_size. */
#include <fcntl.h>

#include "image/image_store.h"
#include "image/layer.h"

struct verification {
        struct image_store *st;
        void (*report)(void *arg, const struct image_check *check);
        void *arg;
        struct table seen; /* digests already looked at, with their verdict in `bad` */
        int bad;
};

static void tell(struct verification *v, const char *kind, const char *image, const char *digest,
                 const char *problem)
{
        v->bad += *problem != '\0';
        if (v->report)
                v->report(v->arg, &(struct image_check){ .kind = kind,
                                                         .image = image,
                                                         .digest = digest,
                                                         .good = !*problem,
                                                         .problem = problem });
}

static void verify_blob(struct verification *v, const char *kind, const char *image,
                        const char *text)
{
        struct digest digest;
        struct err err = { 0 };
        if (table_get(&v->seen, text))
                return;
        table_put(&v->seen, text, v);
        int r = digest_parse(text, &digest, &err);
        if (r == 0)
                r = content_verify(v->st->content, &digest, NULL, &err);
        tell(v, kind, image, text, r < 0 ? err_text(&err) : "");
}

static void verify_layer(struct verification *v, const char *image, const char *text)
{
        struct digest digest;
        struct err err = { 0 };
        if (table_get(&v->seen, text))
                return;
        table_put(&v->seen, text, v);
        if (digest_parse(text, &digest, &err) < 0)
                tell(v, "layer", image, text, err_text(&err));
        else
                tell(v, "layer", image, text,
                     layer_ready(v->st, &digest, NULL) ? ""
                                                       : "the unpacked layer is missing; it is "
                                                         "made again from its blob when needed");
}

static const char *blob_kind(const struct image_record *record, const char *digest)
{
        if (streq(digest, record->id))
                return "config";
        if (streq(digest, record->manifest))
                return "manifest";
        return strv_contains(record->layer_blobs, digest) ? "layer blob" : "other manifest";
}

static void verify_image(struct verification *v, const struct image_record *record)
{
        struct digest id;
        char image[IMAGE_SHORT_SIZE] = "";
        if (digest_parse(record->id, &id, NULL) == 0)
                image_short_id(&id, image);
        for (char **blob = record->blobs; blob && *blob; blob++)
                verify_blob(v, blob_kind(record, *blob), image, *blob);
        for (char **chain_id = record->chain_ids; chain_id && *chain_id; chain_id++)
                verify_layer(v, image, *chain_id);
}

int image_verify(struct image_store *st, const char *name_or_id,
                 void (*report)(void *arg, const struct image_check *check), void *arg,
                 struct err *err)
{
        struct verification v = { .st = st, .report = report, .arg = arg };
        struct store_value *values = NULL;
        size_t length = 0;
        struct digest id = { 0 };
        int r = name_or_id ? image_find(st, name_or_id, &id, NULL, err) : 0;
        auto_free char *prefix = xasprintf(RECORD_IMAGE "%s",
                                           name_or_id && r == 0 ? digest_hex(&id) : "");
        if (r == 0)
                r = store_list(st->store, prefix, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct image_record record = { 0 };
                struct err cause = { 0 };
                if (record_decode(&values[i], &image_record_shape, &record, &cause) < 0)
                        tell(&v, "record", str_after(values[i].key, RECORD_IMAGE), "",
                             err_text(&cause));
                else
                        verify_image(&v, &record);
                json_free(&image_record_shape, &record);
        }
        store_values_free(values, length);
        table_finish(&v.seen);
        return r < 0 ? r : v.bad;
}

/* ---- sizes ------------------------------------------------------------- */

static int add_blob(void *arg, const struct digest *digest, const char *name, uint64_t size_bytes,
                    int64_t mtime_ns, struct err *err)
{
        (void)digest, (void)name, (void)mtime_ns, (void)err;
        *(uint64_t *)arg += size_bytes;
        return 0;
}

static bool in_use(const struct image *image, const struct image_use *uses, size_t length)
{
        for (size_t i = 0; i < length; i++)
                if (streq(uses[i].image_id, image->id.text))
                        return true;
        return false;
}

int image_usage(struct image_store *st, const struct image_use *uses, size_t uses_length,
                struct image_disk_usage *ret, struct err *err)
{
        struct image_disk_usage usage = { 0 };
        struct image **list;
        struct table all = { 0 };
        int r = image_load_all(st, &list, &usage.images_length, err);
        if (r < 0)
                return r;
        for (size_t pass = 0; pass < 2; pass++) {
                for (size_t i = 0; i < usage.images_length; i++) {
                        const struct image *image = list[i];
                        if (in_use(image, uses, uses_length) != (pass == 0))
                                continue;
                        usage.active_length += pass == 0;
                        for (size_t n = 0; n < image->layers_length; n++) {
                                const char *chain_id = image->chain_ids[n].text;
                                if (table_get(&all, chain_id))
                                        continue;
                                table_put(&all, chain_id, st);
                                usage.layers_bytes += image->layer_sizes_bytes[n];
                                if (pass == 1)
                                        usage.reclaimable_bytes += image->layer_sizes_bytes[n];
                        }
                }
        }
        r = content_walk(st->content, false, add_blob, &usage.blobs_bytes, err);
        table_finish(&all);
        image_list_free(list, usage.images_length);
        if (r == 0)
                *ret = usage;
        return r;
}

int image_shared_size(struct image_store *st, const struct image *image, uint64_t *ret_bytes,
                      struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        struct table others = { 0 };
        int r = store_list(st->store, RECORD_IMAGE, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct image_record record = { 0 };
                if (record_decode(&values[i], &image_record_shape, &record, NULL) == 0 &&
                    !streq(record.id, image->id.text))
                        for (char **c = record.chain_ids; c && *c; c++)
                                table_put(&others, *c, st);
                json_free(&image_record_shape, &record);
        }
        uint64_t bytes = 0;
        for (size_t i = 0; i < image->layers_length; i++)
                if (table_get(&others, image->chain_ids[i].text))
                        bytes += image->layer_sizes_bytes[i];
        table_finish(&others);
        store_values_free(values, length);
        if (r == 0)
                *ret_bytes = bytes;
        return r;
}
