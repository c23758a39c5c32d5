/* Parsing and checking what registries and archives say about images. */
#include "base/buf.h"
#include "base/str.h"
#include "oci/image_spec.h"

#define ATTESTATION_KEY  "vnd.docker.reference.type"
#define OFFERS_SHOWN_MAX 16

void oci_manifest_finish(struct oci_manifest *manifest)
{
        json_free(&oci_manifest_shape, manifest);
}

void oci_index_finish(struct oci_index *index)
{
        json_free(&oci_index_shape, index);
}

void oci_image_config_finish(struct oci_image_config *config)
{
        json_free(&oci_image_config_shape, config);
}

static bool has_member(struct json_object *object, const char *name)
{
        struct json_object *value = NULL;
        return json_object_object_get_ex(object, name, &value) && value;
}

static const char *member_text(struct json_object *object, const char *name)
{
        struct json_object *value = NULL;
        json_object_object_get_ex(object, name, &value);
        return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

static int refuse_v1(struct err *err)
{
        return err_plain(err, ENOTSUP,
                         "image manifest is of Docker's schema 1, which is no longer supported: "
                         "push the image again with a current tool");
}

/* What the media type that came with the text says. Servers that do not know
 * better send a general type, which says nothing; an unknown one is refused. */
static int kind_of_hint(const char *hint, enum oci_media_kind *ret, struct err *err)
{
        static const char *const general[] = { "application/json", "application/octet-stream",
                                               "text/plain" };
        const struct oci_media_type *type = oci_media_type_find(hint);

        *ret = OCI_KIND_UNKNOWN;
        if (type && type->kind == OCI_KIND_MANIFEST_V1)
                return refuse_v1(err);
        if (type && (type->kind == OCI_KIND_INDEX || type->kind == OCI_KIND_MANIFEST)) {
                *ret = type->kind;
                return 0;
        }
        if (str_empty(hint))
                return 0;
        for (size_t i = 0; i < ELEMENTS(general); i++) {
                size_t length = strlen(general[i]);
                if (strncasecmp(hint, general[i], length) == 0 && strchr("; ", hint[length]))
                        return 0;
        }
        return err_plain(err, EBADMSG, "'%.100s' is not the media type of an image manifest", hint);
}

/* What the members of the text say. A text that could be read as either kind is
 * refused: readers that disagree about it could be shown different images
 * (CVE-2021-41190). */
static int kind_of_members(struct json_object *object, enum oci_media_kind *ret, struct err *err)
{
        bool index = has_member(object, "manifests");
        bool manifest = has_member(object, "layers") || has_member(object, "config");

        if (has_member(object, "fsLayers"))
                return refuse_v1(err);
        if (index && manifest)
                return err_plain(err, EBADMSG,
                                 "image manifest is ambiguous: it has both 'manifests' and "
                                 "'layers' or 'config'");
        if (!index && !manifest)
                return err_plain(err, EBADMSG,
                                 "image manifest has neither 'manifests' nor 'layers'");
        *ret = index ? OCI_KIND_INDEX : OCI_KIND_MANIFEST;
        return 0;
}

/* Parses the text and tells its kind, about which all evidence must agree. */
static int load_manifest(const char *text, size_t size, const char *hint,
                         struct json_object **ret_object, enum oci_media_kind *ret_kind,
                         struct err *err)
{
        auto_json object = NULL;
        enum oci_media_kind by_hint, by_type, by_members = OCI_KIND_UNKNOWN;

        if (size > OCI_MANIFEST_SIZE_MAX)
                return err_plain(err, E2BIG,
                                 "image manifest of %zu bytes is beyond the limit of %zu", size,
                                 OCI_MANIFEST_SIZE_MAX);
        int r = json_parse(text, size, &object, err);
        if (r < 0) {
                err_wrap(err, "image manifest");
                return r;
        }
        if (!json_object_is_type(object, json_type_object))
                return err_plain(err, EBADMSG, "image manifest is not a JSON object");
        r = kind_of_hint(hint, &by_hint, err);
        if (r < 0)
                return r;
        r = kind_of_members(object, &by_members, err);
        if (r < 0)
                return r;
        const char *type = member_text(object, "mediaType");
        r = kind_of_hint(type, &by_type, err);
        if (r < 0)
                return r;
        if ((by_hint != OCI_KIND_UNKNOWN && by_hint != by_members) ||
            (by_type != OCI_KIND_UNKNOWN && by_type != by_members))
                return err_plain(err, EBADMSG, "image manifest contradicts its media type '%.100s'",
                                 by_hint != OCI_KIND_UNKNOWN && by_hint != by_members ? hint
                                                                                      : type);
        *ret_object = take_ptr(object);
        *ret_kind = by_members;
        return 0;
}

int oci_manifest_kind(const char *text, size_t size, const char *media_type,
                      enum oci_media_kind *ret, struct err *err)
{
        auto_json object = NULL;
        return load_manifest(text, size, media_type, &object, ret, err);
}

/* `what` names the descriptor in errors: "manifest.layers[3]". */
static int check_descriptor(const struct oci_descriptor *descriptor, const char *what,
                            struct err *err)
{
        struct digest digest;
        int r = digest_parse(descriptor->digest, &digest, err);
        if (r < 0) {
                err_wrap(err, "%s.digest", what);
                return r;
        }
        if (descriptor->size_bytes < 0 || descriptor->size_bytes > OCI_BLOB_SIZE_MAX)
                return err_plain(err, EBADMSG, "%s.size: %lld is not in 0 … %lld", what,
                                 (long long)descriptor->size_bytes, (long long)OCI_BLOB_SIZE_MAX);
        if (str_empty(descriptor->media_type))
                return err_plain(err, EBADMSG, "%s.mediaType: is empty", what);
        return 0;
}

static int check_descriptors(const struct oci_descriptor *descriptors, size_t length, size_t max,
                             const char *what, struct err *err)
{
        char place[64];
        if (length > max)
                return err_plain(err, E2BIG, "%s: %zu entries are more than the limit of %zu", what,
                                 length, max);
        for (size_t i = 0; i < length; i++) {
                snprintf(place, sizeof(place), "%s[%zu]", what, i);
                int r = check_descriptor(&descriptors[i], place, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_head(int32_t schema_version, const struct oci_descriptor *subject,
                      const char *what, struct err *err)
{
        char place[64];
        if (schema_version != 2)
                return err_plain(err, EBADMSG, "%s.schemaVersion: %d is not 2", what,
                                 schema_version);
        snprintf(place, sizeof(place), "%s.subject", what);
        return subject ? check_descriptor(subject, place, err) : 0;
}

/* The media type, from the text, else from what came with it, else OCI's. */
static void settle_media_type(char **media_type, const char *hint, const char *fallback)
{
        const struct oci_media_type *type = oci_media_type_find(hint);
        if (str_empty(*media_type)) {
                free(*media_type);
                *media_type = xstrdup(type ? type->name : fallback);
        }
}

int oci_manifest_parse(const char *text, size_t size, const char *media_type,
                       struct oci_manifest *ret, struct err *err)
{
        auto_json object = NULL;
        struct oci_manifest manifest = { 0 };
        enum oci_media_kind kind;

        int r = load_manifest(text, size, media_type, &object, &kind, err);
        if (r < 0)
                return r;
        if (kind != OCI_KIND_MANIFEST)
                return err_plain(err, EBADMSG, "expected an image manifest, found an index");
        r = json_decode(&oci_manifest_shape, object, &manifest, err);
        if (r < 0) {
                err_wrap(err, "image manifest");
                return r;
        }
        r = check_head(manifest.schema_version, manifest.subject, "manifest", err);
        if (r == 0)
                r = check_descriptor(&manifest.config, "manifest.config", err);
        if (r == 0)
                r = check_descriptors(manifest.layers, manifest.layers_length, OCI_LAYERS_MAX,
                                      "manifest.layers", err);
        if (r < 0) {
                oci_manifest_finish(&manifest);
                return r;
        }
        settle_media_type(&manifest.media_type, media_type, OCI_MEDIA_MANIFEST);
        *ret = manifest;
        return 0;
}

int oci_index_parse(const char *text, size_t size, const char *media_type, struct oci_index *ret,
                    struct err *err)
{
        auto_json object = NULL;
        struct oci_index index = { 0 };
        enum oci_media_kind kind;

        int r = load_manifest(text, size, media_type, &object, &kind, err);
        if (r < 0)
                return r;
        if (kind != OCI_KIND_INDEX)
                return err_plain(err, EBADMSG, "expected an image index, found a manifest");
        r = json_decode(&oci_index_shape, object, &index, err);
        if (r < 0) {
                err_wrap(err, "image index");
                return r;
        }
        r = check_head(index.schema_version, index.subject, "index", err);
        if (r == 0)
                r = check_descriptors(index.manifests, index.manifests_length,
                                      OCI_INDEX_MANIFESTS_MAX, "index.manifests", err);
        if (r < 0) {
                oci_index_finish(&index);
                return r;
        }
        settle_media_type(&index.media_type, media_type, OCI_MEDIA_INDEX);
        *ret = index;
        return 0;
}

static int check_rootfs(const struct oci_rootfs *rootfs, struct err *err)
{
        struct digest digest;
        size_t length = strv_length(rootfs->diff_ids);

        if (!streq(rootfs->type, "layers"))
                return err_plain(err, EBADMSG, "image config.rootfs.type: '%.100s' is not 'layers'",
                                 rootfs->type);
        if (length > OCI_LAYERS_MAX)
                return err_plain(err, E2BIG,
                                 "image config.rootfs.diff_ids: %zu layers are more than the limit "
                                 "of %d",
                                 length, OCI_LAYERS_MAX);
        for (size_t i = 0; i < length; i++) {
                int r = digest_parse(rootfs->diff_ids[i], &digest, err);
                if (r < 0) {
                        err_wrap(err, "image config.rootfs.diff_ids[%zu]", i);
                        return r;
                }
        }
        return 0;
}

int oci_image_config_parse(const char *text, size_t size, struct oci_image_config *ret,
                           struct err *err)
{
        struct oci_image_config config;

        if (size > OCI_IMAGE_CONFIG_SIZE_MAX)
                return err_plain(err, E2BIG, "image config of %zu bytes is beyond the limit of %zu",
                                 size, OCI_IMAGE_CONFIG_SIZE_MAX);
        int r = json_decode_text(&oci_image_config_shape, text, size, &config, err);
        if (r < 0)
                return r;
        r = check_rootfs(&config.rootfs, err);
        if (r < 0) {
                oci_image_config_finish(&config);
                return r;
        }
        if (str_empty(config.os)) { /* images of before there was another */
                free(config.os);
                config.os = xstrdup("linux");
        }
        *ret = config;
        return 0;
}

int oci_image_check(const struct oci_manifest *manifest, const struct oci_image_config *config,
                    struct err *err)
{
        size_t diff_ids = strv_length(config->rootfs.diff_ids);
        const struct oci_media_type *type = oci_media_type_find(manifest->config.media_type);

        if (!type || type->kind != OCI_KIND_CONFIG)
                return err_plain(err, EBADMSG,
                                 "not a container image: its config is of media type '%.100s'",
                                 manifest->config.media_type);
        for (size_t i = 0; i < manifest->layers_length; i++) {
                type = oci_media_type_find(manifest->layers[i].media_type);
                if (!type || type->kind != OCI_KIND_LAYER)
                        return err_plain(err, ENOTSUP,
                                         "manifest.layers[%zu]: media type '%.100s' is not "
                                         "supported",
                                         i, manifest->layers[i].media_type);
        }
        if (diff_ids != manifest->layers_length)
                return err_plain(err, EBADMSG,
                                 "image is inconsistent: its manifest has %zu layers, its config "
                                 "has %zu",
                                 manifest->layers_length, diff_ids);
        return 0;
}

static bool is_attestation(const struct oci_descriptor *entry)
{
        return json_map_get(entry->annotations, ATTESTATION_KEY) ||
               (entry->platform && streq(entry->platform->os, "unknown"));
}

/* Only manifests can be chosen; one without a platform serves when nothing better does. */
static int score(const struct oci_descriptor *entry, const struct oci_platform *wanted)
{
        const struct oci_media_type *type = oci_media_type_find(entry->media_type);
        if (!type || type->kind != OCI_KIND_MANIFEST || entry->artifact_type ||
            is_attestation(entry))
                return 0;
        return entry->platform ? oci_platform_score(entry->platform, wanted) : 1;
}

static int nothing_fits(const struct oci_index *index, const struct oci_platform *wanted,
                        struct err *err)
{
        char text[OCI_PLATFORM_TEXT_SIZE];
        auto_buf offers = { 0 };
        size_t shown = 0;

        for (size_t i = 0; i < index->manifests_length && shown < OFFERS_SHOWN_MAX; i++) {
                const struct oci_descriptor *entry = &index->manifests[i];
                if (!entry->platform || is_attestation(entry))
                        continue;
                oci_platform_format(entry->platform, text);
                buf_printf(&offers, "%s%s", shown++ > 0 ? ", " : "", text);
        }
        oci_platform_format(wanted, text);
        if (shown == 0)
                return err_plain(err, ENOENT, "no image for platform %s: the index offers none",
                                 text);
        return err_plain(err, ENOENT, "no image for platform %s: there are %s", text,
                         buf_text(&offers));
}

int oci_index_select(const struct oci_index *index, const struct oci_platform *wanted,
                     const struct oci_descriptor **ret, struct err *err)
{
        const struct oci_descriptor *best = NULL;
        int best_score = 0;

        for (size_t i = 0; i < index->manifests_length; i++) {
                int s = score(&index->manifests[i], wanted);
                if (s > best_score) {
                        best_score = s;
                        best = &index->manifests[i];
                }
        }
        if (!best)
                return nothing_fits(index, wanted, err);
        *ret = best;
        return 0;
}

int oci_chain_id(char *const *diff_ids, size_t length, struct digest *ret, struct err *err)
{
        struct digest chain = { 0 }, diff;

        if (length == 0)
                return err_plain(err, EINVAL, "an image without layers has no chain");
        for (size_t i = 0; i < length; i++) {
                int r = digest_parse(diff_ids[i], &diff, err);
                if (r < 0)
                        return r;
                if (i == 0) {
                        chain = diff;
                        continue;
                }
                auto_free char *text = xasprintf("%s %s", chain.text, diff.text);
                digest_bytes(text, strlen(text), &chain);
        }
        *ret = chain;
        return 0;
}
