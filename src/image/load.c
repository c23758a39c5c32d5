/* docker load: docker-archive (manifest.json), OCI layout (index.json), or both in
 * one tar. Files are read in the order they come: each becomes a blob at once, and
 * what it is turns out when the indexes at the end are read. */
#include <sys/stat.h>

#include "base/clock.h"
#include "image/archive.h"
#include "image/image_store.h"
#include "image/progress.h"
#include "oci/image_spec.h"
#include "oci/reference.h"

#define FILES_MAX      4096
#define INDEX_SIZE_MAX ((size_t)4 << 20)
#define LINKS_MAX      8
#define BLOB_SIZE_MAX  ((uint64_t)1 << 40)

struct loading {
        struct image_store *st;
        const struct image_transfer *how;
        void (*loaded)(void *arg, const char *line);
        void *arg;
        struct lease lease;
        struct progress progress;
        struct oci_platform platform;
        struct table files; /* path -> digest text, or "-> path" of a link; heap */
        struct table ids;   /* image ids that were loaded */
};

/* ---- reading the tar --------------------------------------------------- */

/* Without "./" and double slashes; `base` is the directory it is relative to, or "". */
static char *clean_path(const char *base, const char *path)
{
        auto_strv parts = NULL;
        auto_free char *whole = *path == '/' ? xstrdup(path) : xasprintf("%s/%s", base, path);
        auto_strv pieces = str_split(whole, '/');
        for (char **piece = pieces; *piece; piece++) {
                size_t length = strv_length(parts);
                if (!**piece || streq(*piece, "."))
                        continue;
                if (streq(*piece, "..")) {
                        if (length > 0)
                                free(take_ptr(parts[length - 1]));
                        continue;
                }
                strv_push(&parts, *piece);
        }
        return parts ? strv_join(parts, "/") : xstrdup("");
}

static void put_file(struct loading *loading, const char *path, char *value)
{
        free(table_put(&loading->files, path, value));
}

static void put_link(struct loading *loading, const char *path, const struct tar_entry *entry)
{
        const char *slash = strrchr(path, '/');
        auto_free char *base = entry->hard_link || !slash ? xstrdup("")
                                                          : xstrndup(path, (size_t)(slash - path));
        auto_free char *target = clean_path(base, entry->link);
        put_file(loading, path, xasprintf("-> %s", target));
}

static const char *find_file(const struct loading *loading, const char *path)
{
        for (unsigned links = 0; links < LINKS_MAX; links++) {
                const char *value = table_get(&loading->files, path);
                const char *target = value ? str_after(value, "-> ") : NULL;
                if (!target)
                        return value;
                path = target;
        }
        return NULL;
}

static int read_blob(struct loading *loading, struct tar_reader *reader, const char *path,
                     const struct tar_entry *entry, struct err *err)
{
        const void *data;
        size_t size;
        uint64_t offset;
        int r;
        auto_ingest ingest = NULL;
        char shown[IMAGE_SHORT_SIZE];
        const char *slash = strrchr(path, '/');
        const char *hex = str_after(path, "blobs/sha256/");
        struct progress_bar bar = { .progress = &loading->progress,
                                    .id = shown,
                                    .status = "Loading layer" };
        snprintf(shown, sizeof(shown), "%.12s", hex ? hex : slash ? path : "");
        r = ingest_begin_new(loading->st->content, BLOB_SIZE_MAX, &ingest, err);
        if (r < 0)
                return r;
        while ((r = tar_reader_data(reader, &data, &size, &offset, err)) > 0) {
                if (loading->how->cancel && atomic_load(loading->how->cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                if (offset != ingest_offset(ingest))
                        return err_plain(err, EBADMSG, "a file with holes");
                r = ingest_write(ingest, data, size, err);
                if (r < 0)
                        return r;
                if (shown[0] && entry->size_bytes > (1u << 20))
                        progress_bar_set(&bar, ingest_offset(ingest), entry->size_bytes);
        }
        struct digest digest;
        if (r == 0)
                r = archive_commit_blob(&loading->lease, ingest, &digest, err);
        if (r < 0)
                return r;
        if (hex && strlen(hex) == 64 && !streq(hex, digest_hex(&digest)))
                return err_plain(err, EBADMSG, "its content hashes to %s: the archive is damaged",
                                 digest.text);
        put_file(loading, path, xstrdup(digest.text));
        return 0;
}

static int read_entry(struct loading *loading, struct tar_reader *reader,
                      const struct tar_entry *entry, struct err *err)
{
        auto_free char *path = clean_path("", entry->path);
        if (entry->link) {
                put_link(loading, path, entry);
                return 0;
        }
        if (!S_ISREG(entry->mode))
                return 0;
        if (loading->files.length >= FILES_MAX)
                return err_plain(err, EFBIG, "more than %d files", FILES_MAX);
        return read_blob(loading, reader, path, entry, err);
}

static int read_archive(struct loading *loading, int fd, struct err *err)
{
        auto_archive_source source = NULL;
        auto_tar_reader reader = NULL;
        struct tar_entry entry;
        int r = archive_source_open(fd, loading->how->cancel, &source, err);
        if (r == 0)
                r = tar_reader_create(archive_source_read, source, NULL, &reader, err);
        if (r < 0)
                return r;
        while ((r = tar_reader_next(reader, &entry, err)) > 0) {
                r = read_entry(loading, reader, &entry, err);
                if (r < 0)
                        return err_wrap(err, "'%s' in the archive", entry.path), r;
        }
        return r < 0 ? r : tar_reader_drain(reader, err);
}

static int read_text(struct loading *loading, const char *digest_text, size_t limit, char **ret,
                     size_t *ret_size, struct err *err)
{
        struct digest digest;
        int r = digest_parse(digest_text, &digest, err);
        return r < 0 ? r : content_read(loading->st->content, &digest, limit, ret, ret_size, err);
}

/* ---- telling ----------------------------------------------------------- */

static void tell(struct loading *loading, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
static void tell(struct loading *loading, const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        auto_free char *line = xvasprintf(format, ap);
        va_end(ap);
        if (loading->loaded)
                loading->loaded(loading->arg, line);
}

/* A name that another image had until now. */
static void tell_of_old(struct loading *loading, const char *canonical, const char *familiar,
                        const char *id)
{
        struct ref_record ref = { 0 };
        if (record_get(loading->st->store, RECORD_REF, canonical, &ref_record_shape, &ref, NULL,
                       NULL) == 0 &&
            !streq(ref.image, id))
                tell(loading,
                     "The image %s already exists, renaming the old one with ID %s to "
                     "empty string",
                     familiar, ref.image);
        json_free(&ref_record_shape, &ref);
}

/* ---- one image --------------------------------------------------------- */

/* `names` as people or annotations write them; those that are none are left out. */
static int commit(struct loading *loading, struct archive_image *made, char *const *names,
                  struct err *err)
{
        auto_strv canonical = NULL;
        auto_strv familiar = NULL;
        auto_image image = NULL;
        struct digest id;
        digest_bytes(made->config, made->config_size, &id);
        for (; names && *names; names++) {
                auto_reference reference = { 0 };
                if (oci_reference_parse(*names, &reference, NULL) < 0 || !reference.tag)
                        continue;
                auto_free char *name = oci_reference_name(&reference);
                auto_free char *whole = xasprintf("%s:%s", name, reference.tag);
                auto_free char *shown = oci_reference_familiar(&reference);
                if (strv_contains(canonical, whole))
                        continue;
                tell_of_old(loading, whole, shown, id.text);
                strv_push(&canonical, whole);
                strv_push(&familiar, shown);
        }
        made->names = canonical;
        made->cancel = loading->how->cancel;
        int r = archive_commit_image(&loading->lease, made, &image, err);
        if (r < 0)
                return r;
        bool again = table_put(&loading->ids, id.text, loading);
        for (char **name = familiar; name && *name; name++)
                tell(loading, "Loaded image: %s", *name);
        if (!familiar && !again)
                tell(loading, "Loaded image ID: %s", id.text);
        return 0;
}

/* ---- OCI layout -------------------------------------------------------- */

static int load_manifest(struct loading *loading, const char *digest_text, char *const *names,
                         struct err *err)
{
        auto_free char *text = NULL, *config = NULL;
        struct oci_manifest manifest = { 0 };
        struct digest digest;
        size_t size, config_size;
        int r = digest_parse(digest_text, &digest, err);
        if (r == 0)
                r = read_text(loading, digest_text, OCI_MANIFEST_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = oci_manifest_parse(text, size, NULL, &manifest, err);
        if (r == 0)
                r = read_text(loading, manifest.config.digest, OCI_IMAGE_CONFIG_SIZE_MAX, &config,
                              &config_size, err);
        struct digest *layers = r == 0 ? xcalloc(manifest.layers_length + 1, sizeof(*layers))
                                       : NULL;
        for (size_t i = 0; r == 0 && i < manifest.layers_length; i++)
                r = digest_parse(manifest.layers[i].digest, &layers[i], err);
        if (r == 0) {
                struct archive_image made = { .config = config,
                                              .config_size = config_size,
                                              .layers = layers,
                                              .layers_length = manifest.layers_length,
                                              .manifest = &digest };
                r = commit(loading, &made, names, err);
        }
        free(layers);
        oci_manifest_finish(&manifest);
        return r < 0 ? (err_wrap(err, "manifest %.19s", digest_text), r) : 0;
}

/* containerd's annotation holds the whole name; OCI's may be the tag alone. */
static char **annotated_names(const struct oci_descriptor *descriptor)
{
        char **names = NULL;
        const char *tag = NULL;
        for (char **a = descriptor->annotations; a && *a; a++) {
                const char *value = str_after(*a, "io.containerd.image.name=");
                if (value)
                        strv_push(&names, value);
                value = str_after(*a, "org.opencontainers.image.ref.name=");
                tag = value ? value : tag;
        }
        if (!names && tag && strpbrk(tag, ":/"))
                strv_push(&names, tag);
        return names;
}

static int load_descriptor(struct loading *loading, const struct oci_descriptor *descriptor,
                           char *const *names, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        enum oci_media_kind kind = OCI_KIND_UNKNOWN;
        int r = read_text(loading, descriptor->digest, OCI_MANIFEST_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = oci_manifest_kind(text, size, descriptor->media_type, &kind, err);
        if (r < 0 || kind != OCI_KIND_INDEX)
                return r < 0 ? r : load_manifest(loading, descriptor->digest, names, err);
        struct oci_index index = { 0 };
        const struct oci_descriptor *chosen;
        r = oci_index_parse(text, size, NULL, &index, err);
        if (r == 0)
                r = oci_index_select(&index, &loading->platform, &chosen, err);
        if (r == 0)
                r = load_manifest(loading, chosen->digest, names, err);
        oci_index_finish(&index);
        return r;
}

static int load_layout(struct loading *loading, const char *digest_text, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        struct oci_index index = { 0 };
        int r = read_text(loading, digest_text, INDEX_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = oci_index_parse(text, size, NULL, &index, err);
        for (size_t i = 0; r == 0 && i < index.manifests_length; i++) {
                const struct oci_descriptor *descriptor = &index.manifests[i];
                if (descriptor->platform && index.manifests_length > 1 &&
                    oci_platform_score(descriptor->platform, &loading->platform) == 0)
                        continue;
                auto_strv names = annotated_names(descriptor);
                r = load_descriptor(loading, descriptor, names, err);
        }
        oci_index_finish(&index);
        return r < 0 ? (err_wrap(err, "index.json"), r) : 0;
}

/* ---- docker-archive ---------------------------------------------------- */

struct docker_item {
        char *config;
        char **repo_tags, **layers;
};
static const struct json_field docker_item_fields[] = {
        JSON_FIELD(struct docker_item, "Config", JSON_STRING, config, JSON_REQUIRED),
        JSON_FIELD(struct docker_item, "RepoTags", JSON_STRV, repo_tags, 0),
        JSON_FIELD(struct docker_item, "Layers", JSON_STRV, layers, 0),
};
static const struct json_shape docker_item_shape = JSON_SHAPE("manifest.json", struct docker_item,
                                                              docker_item_fields);

static int find_blob(struct loading *loading, const char *path, struct digest *ret, struct err *err)
{
        auto_free char *clean = clean_path("", path);
        const char *digest = find_file(loading, clean);
        if (!digest)
                return err_plain(err, EBADMSG, "the archive lacks '%s', which manifest.json names",
                                 path);
        return digest_parse(digest, ret, err);
}

static int load_item(struct loading *loading, const struct docker_item *item, struct err *err)
{
        auto_free char *config = NULL;
        struct digest id;
        size_t size, length = strv_length(item->layers);
        int r = find_blob(loading, item->config, &id, err);
        if (r == 0)
                r = read_text(loading, id.text, OCI_IMAGE_CONFIG_SIZE_MAX, &config, &size, err);
        if (r == 0 && length > IMAGE_LAYERS_MAX)
                r = err_plain(err, EINVAL, "an image of %zu layers", length);
        if (r < 0)
                return r;
        /* The OCI half of the archive had it, with its own manifest: only names. */
        struct image_record known = { 0 };
        struct digest manifest;
        bool loaded = table_get(&loading->ids, id.text) &&
                      record_get(loading->st->store, RECORD_IMAGE, digest_hex(&id),
                                 &image_record_shape, &known, NULL, NULL) == 0 &&
                      digest_parse(known.manifest, &manifest, NULL) == 0;
        auto_free struct digest *layers = xcalloc(length + 1, sizeof(*layers));
        for (size_t i = 0; r == 0 && i < length; i++)
                r = find_blob(loading, item->layers[i], &layers[i], err);
        bool named = true;
        for (char **tag = item->repo_tags; loaded && tag && *tag; tag++) {
                struct digest found;
                bool by_id;
                named = named && image_find(loading->st, *tag, &found, &by_id, NULL) == 0 &&
                        !by_id && digest_equal(&found, &id);
        }
        if (r == 0 && !(loaded && named)) {
                struct archive_image made = { .config = config,
                                              .config_size = size,
                                              .layers = layers,
                                              .layers_length = length,
                                              .manifest = loaded ? &manifest : NULL };
                r = commit(loading, &made, item->repo_tags, err);
        }
        json_free(&image_record_shape, &known);
        return r;
}

static int load_docker(struct loading *loading, const char *digest_text, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        auto_json list = NULL;
        int r = read_text(loading, digest_text, INDEX_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = json_parse(text, size, &list, err);
        if (r == 0 && !json_object_is_type(list, json_type_array))
                r = err_plain(err, EBADMSG, "not a list");
        for (size_t i = 0; r == 0 && i < json_object_array_length(list); i++) {
                struct docker_item item = { 0 };
                r = json_decode(&docker_item_shape, json_object_array_get_idx(list, i), &item, err);
                if (r == 0)
                        r = load_item(loading, &item, err);
                json_free(&docker_item_shape, &item);
        }
        return r < 0 ? (err_wrap(err, "manifest.json"), r) : 0;
}

/* ---- the whole --------------------------------------------------------- */

static int load_all(struct loading *loading, int fd, struct err *err)
{
        int r = read_archive(loading, fd, err);
        if (r < 0)
                return r;
        const char *index = find_file(loading, "index.json");
        const char *manifest = find_file(loading, "manifest.json");
        if (!index && !manifest)
                return err_plain(err, EINVAL,
                                 "this is no image archive: it holds neither "
                                 "manifest.json nor index.json (a file system tar is "
                                 "for 'import')");
        if (index)
                r = load_layout(loading, index, err);
        if (r == 0 && manifest)
                r = load_docker(loading, manifest, err);
        return r;
}

static void loading_finish(struct loading *loading)
{
        size_t cursor = 0;
        const struct table_entry *entry;
        while ((entry = table_next(&loading->files, &cursor)))
                free(entry->value);
        table_finish(&loading->files);
        table_finish(&loading->ids);
        oci_platform_finish(&loading->platform);
        progress_finish(&loading->progress);
}

int image_load(struct image_store *st, int in_fd, const struct image_transfer *how,
               void (*loaded)(void *arg, const char *line), void *arg, struct err *err)
{
        static const struct image_transfer quiet;
        struct loading loading = {
                .st = st, .how = how ? how : &quiet, .loaded = loaded, .arg = arg
        };
        const char *platform = loading.how->platform ? loading.how->platform : st->default_platform;
        int r = 0;
        if (platform)
                r = oci_platform_parse(platform, &loading.platform, err);
        else
                oci_platform_host(&loading.platform);
        if (r < 0)
                return r;
        progress_init(&loading.progress, &loading.how->progress);
        r = lease_begin(st, "load", &loading.lease, err);
        if (r == 0) {
                r = load_all(&loading, in_fd, err);
                lease_end(&loading.lease, true);
                /* The indexes themselves, and everything after a failure. */
                image_gc(st, NULL, NULL);
        }
        loading_finish(&loading);
        return r < 0 ? (err_wrap(err, "load"), r) : 0;
}
