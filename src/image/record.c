#include "image/record.h"

#include "base/str.h"

static const struct json_field ref_record_fields[] = {
        JSON_FIELD(struct ref_record, "image", JSON_STRING, image, JSON_REQUIRED),
        JSON_FIELD(struct ref_record, "manifest", JSON_STRING, manifest, 0),
};
const struct json_shape ref_record_shape = JSON_SHAPE("image reference", struct ref_record,
                                                      ref_record_fields);

static const struct json_field image_record_fields[] = {
        JSON_FIELD(struct image_record, "id", JSON_STRING, id, JSON_REQUIRED),
        JSON_FIELD(struct image_record, "manifest", JSON_STRING, manifest, JSON_REQUIRED),
        JSON_FIELD(struct image_record, "blobs", JSON_STRV, blobs, 0),
        JSON_FIELD(struct image_record, "layer_blobs", JSON_STRV, layer_blobs, 0),
        JSON_FIELD(struct image_record, "chain_ids", JSON_STRV, chain_ids, 0),
        JSON_FIELD(struct image_record, "pulled_ns", JSON_INT, pulled_ns, 0),
        JSON_FIELD(struct image_record, "boot_id", JSON_STRING, boot_id, 0),
        JSON_FIELD(struct image_record, "durable", JSON_BOOL, durable, 0),
};
const struct json_shape image_record_shape = JSON_SHAPE("image", struct image_record,
                                                        image_record_fields);

static const struct json_field layer_record_fields[] = {
        JSON_FIELD(struct layer_record, "chain_id", JSON_STRING, chain_id, JSON_REQUIRED),
        JSON_FIELD(struct layer_record, "diff_id", JSON_STRING, diff_id, JSON_REQUIRED),
        JSON_FIELD(struct layer_record, "blob", JSON_STRING, blob, 0),
        JSON_FIELD(struct layer_record, "short_name", JSON_STRING, short_name, JSON_REQUIRED),
        JSON_FIELD(struct layer_record, "size_bytes", JSON_UINT, size_bytes, 0),
        JSON_FIELD(struct layer_record, "entries", JSON_UINT, entries, 0),
        JSON_FIELD(struct layer_record, "boot_id", JSON_STRING, boot_id, 0),
        JSON_FIELD(struct layer_record, "durable", JSON_BOOL, durable, 0),
};
const struct json_shape layer_record_shape = JSON_SHAPE("layer", struct layer_record,
                                                        layer_record_fields);

static const struct json_field lease_record_fields[] = {
        JSON_FIELD(struct lease_record, "expires_ns", JSON_INT, expires_ns, 0),
        JSON_FIELD(struct lease_record, "boot_id", JSON_STRING, boot_id, 0),
        JSON_FIELD(struct lease_record, "blobs", JSON_STRV, blobs, 0),
        JSON_FIELD(struct lease_record, "chain_ids", JSON_STRV, chain_ids, 0),
};
const struct json_shape lease_record_shape = JSON_SHAPE("image lease", struct lease_record,
                                                        lease_record_fields);

static const struct json_field snapshot_record_fields[] = {
        JSON_FIELD(struct snapshot_record, "image", JSON_STRING, image, JSON_REQUIRED),
        JSON_FIELD(struct snapshot_record, "chain_ids", JSON_STRV, chain_ids, 0),
};
const struct json_shape snapshot_record_shape = JSON_SHAPE("snapshot", struct snapshot_record,
                                                           snapshot_record_fields);

int record_decode(const struct store_value *value, const struct json_shape *shape, void *out,
                  struct err *err)
{
        struct err cause = { 0 };
        if (json_decode_text(shape, value->data, value->size, out, &cause) == 0)
                return 0;
        return err_plain(err, EUCLEAN,
                         "the state record '%s' cannot be read (%s); remove the image "
                         "and pull it again",
                         value->key, err_text(&cause));
}

int record_get(struct store *store, const char *prefix, const char *name,
               const struct json_shape *shape, void *out, uint64_t *ret_revision, struct err *err)
{
        auto_free char *key = xasprintf("%s%s", prefix, name);
        struct store_value value = { 0 };
        int r = store_get(store, key, &value, err);
        if (r < 0)
                return r;
        r = record_decode(&value, shape, out, err);
        if (r == 0 && ret_revision)
                *ret_revision = value.mod_revision;
        store_value_finish(&value);
        return r;
}

int record_put(struct store *store, const char *prefix, const char *name,
               const struct json_shape *shape, const void *record, struct err *err)
{
        auto_free char *key = xasprintf("%s%s", prefix, name);
        auto_free char *text = json_encode_text(shape, record, false);
        return store_put(store, key, text, strlen(text), err);
}

int record_delete(struct store *store, const char *prefix, const char *name, struct err *err)
{
        auto_free char *key = xasprintf("%s%s", prefix, name);
        return store_delete(store, key, err);
}
