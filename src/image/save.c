/* docker save: one tar that every reader understands. blobs/ holds everything once;
 * manifest.json and repositories are docker's index of it, index.json and
 * oci-layout that of OCI. */
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "codec/tar.h"
#include "image/image_store.h"
#include "oci/image_spec.h"
#include "oci/reference.h"

#define READ_SIZE (256u << 10)

/* An image to save, with the names that were asked for. */
struct saved {
        struct image *image;
        char **tags; /* familiar */
        char *manifest_text;
        size_t manifest_size;
        struct oci_manifest manifest;
};

struct saving {
        struct image_store *st;
        int fd;
        struct tar_writer *writer;
        struct saved *images;
        size_t length;
        struct table written; /* digests */
};

/* ---- what to save ------------------------------------------------------ */

static int add_image(struct saving *saving, struct image *image, const char *tag, struct err *err)
{
        struct saved *saved = NULL;
        for (size_t i = 0; i < saving->length; i++)
                if (digest_equal(&saving->images[i].image->id, &image->id))
                        saved = &saving->images[i];
        if (!saved) {
                saving->images = xrealloc(saving->images, saving->length + 1,
                                          sizeof(*saving->images));
                saved = &saving->images[saving->length++];
                *saved = (struct saved){ .image = image_ref(image) };
                int r = content_read(saving->st->content, &image->manifest, OCI_MANIFEST_SIZE_MAX,
                                     &saved->manifest_text, &saved->manifest_size, err);
                if (r == 0)
                        r = oci_manifest_parse(saved->manifest_text, saved->manifest_size, NULL,
                                               &saved->manifest, err);
                if (r < 0)
                        return r;
        }
        if (tag && !strv_contains(saved->tags, tag))
                strv_push(&saved->tags, tag);
        return 0;
}

/* All tags of a repository. 1 where there was one. */
static int add_repository(struct saving *saving, const char *text, struct err *err)
{
        auto_reference wanted = { 0 };
        struct image **list;
        size_t length;
        int found = 0;
        if (oci_reference_parse_name(text, &wanted, NULL) < 0 || wanted.tag ||
            digest_is_set(&wanted.digest))
                return 0;
        auto_free char *name = oci_reference_familiar_name(&wanted);
        int r = image_load_all(saving->st, &list, &length, err);
        if (r < 0)
                return r;
        for (size_t i = 0; r == 0 && i < length; i++)
                for (char **tag = list[i]->repo_tags; r == 0 && tag && *tag; tag++) {
                        const char *rest = str_after(*tag, name);
                        if (!rest || *rest != ':' || strchr(rest, '/'))
                                continue;
                        r = add_image(saving, list[i], *tag, err);
                        found = 1;
                }
        image_list_free(list, length);
        return r < 0 ? r : found;
}

static int add_name(struct saving *saving, const char *text, struct err *err)
{
        auto_image image = NULL;
        auto_reference reference = { 0 };
        struct digest id;
        bool by_id = false;
        int r = image_find(saving->st, text, &id, &by_id, NULL);
        if (r < 0 || !by_id) {
                int found = add_repository(saving, text, err);
                if (found != 0)
                        return found < 0 ? found : 0;
        }
        r = image_resolve(saving->st, text, &image, err);
        if (r < 0)
                return r;
        auto_free char *tag = NULL;
        if (!by_id && oci_reference_parse(text, &reference, NULL) == 0 &&
            !digest_is_set(&reference.digest))
                tag = oci_reference_familiar(&reference);
        return add_image(saving, image, tag, err);
}

/* ---- writing ----------------------------------------------------------- */

static int write_fd(void *arg, const void *data, size_t size, struct err *err)
{
        struct saving *saving = arg;
        int r = io_write_full(saving->fd, data, size);
        return r < 0 ? err_set(err, -r, "write the archive") : 0;
}

static int write_entry(struct saving *saving, const char *path, mode_t mode, uint64_t size,
                       struct err *err)
{
        struct tar_entry entry = { .path = path, .mode = mode, .size_bytes = size };
        return tar_writer_entry(saving->writer, &entry, err);
}

static int write_text(struct saving *saving, const char *path, const char *text, size_t size,
                      struct err *err)
{
        int r = write_entry(saving, path, S_IFREG | 0644, size, err);
        return r < 0 ? r : tar_writer_data(saving->writer, text, size, err);
}

static int write_json(struct saving *saving, const char *path, struct json_object *object,
                      struct err *err)
{
        const char *text = json_object_to_json_string_ext(
                object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        int r = write_text(saving, path, text, strlen(text), err);
        json_object_put(object);
        return r;
}

/* The digest is computed again on the way: a damaged blob must not spread. */
static int write_blob(struct saving *saving, const char *text, struct err *err)
{
        struct digest digest, found;
        auto_fd fd = -1;
        uint64_t size;
        int r = digest_parse(text, &digest, err);
        if (r < 0 || table_put(&saving->written, digest.text, saving))
                return r;
        r = content_open_blob(saving->st->content, &digest, &fd, &size, err);
        auto_free char *path = xasprintf("blobs/%s", digest.text);
        path[strcspn(path, ":")] = '/';
        if (r == 0)
                r = write_entry(saving, path, S_IFREG | 0644, size, err);
        auto_hasher hasher = hasher_create_for(&digest);
        auto_free char *chunk = xmalloc(READ_SIZE);
        while (r == 0 && size > 0) {
                ssize_t n = io_read_full(fd, chunk, size < READ_SIZE ? (size_t)size : READ_SIZE);
                if (n <= 0)
                        return err_set(err, n < 0 ? (int)-n : EIO, "read blob %s", digest.text);
                hasher_update(hasher, chunk, (size_t)n);
                r = tar_writer_data(saving->writer, chunk, (size_t)n, err);
                size -= (uint64_t)n;
        }
        if (r < 0)
                return r;
        hasher_finish(hasher, &found);
        return digest_check(&digest, &found, "blob", err);
}

static struct json_object *string(const char *text)
{
        return json_object_new_string(text);
}

static struct json_object *blob_path(const char *digest)
{
        auto_free char *path = xasprintf("blobs/%s", digest);
        path[strcspn(path, ":")] = '/';
        return string(path);
}

/* manifest.json: [{Config, RepoTags, Layers}] */
static struct json_object *docker_index(const struct saving *saving)
{
        struct json_object *list = json_object_new_array();
        for (size_t i = 0; i < saving->length; i++) {
                const struct saved *saved = &saving->images[i];
                struct json_object *item = json_object_new_object();
                struct json_object *tags = saved->tags ? json_object_new_array() : NULL;
                struct json_object *layers = json_object_new_array();
                for (char **tag = saved->tags; tag && *tag; tag++)
                        json_object_array_add(tags, string(*tag));
                for (size_t n = 0; n < saved->manifest.layers_length; n++)
                        json_object_array_add(layers, blob_path(saved->manifest.layers[n].digest));
                json_object_object_add(item, "Config", blob_path(saved->image->id.text));
                json_object_object_add(item, "RepoTags", tags);
                json_object_object_add(item, "Layers", layers);
                json_object_array_add(list, item);
        }
        return list;
}

/* repositories: {"name": {"tag": "<top layer>"}} */
static struct json_object *docker_repositories(const struct saving *saving)
{
        struct json_object *all = json_object_new_object();
        for (size_t i = 0; i < saving->length; i++) {
                const struct saved *saved = &saving->images[i];
                for (char **tag = saved->tags; tag && *tag; tag++) {
                        auto_reference reference = { 0 };
                        struct json_object *tags;
                        if (oci_reference_parse(*tag, &reference, NULL) < 0)
                                continue;
                        auto_free char *name = oci_reference_familiar_name(&reference);
                        if (!json_object_object_get_ex(all, name, &tags)) {
                                tags = json_object_new_object();
                                json_object_object_add(all, name, tags);
                        }
                        json_object_object_add(tags, reference.tag,
                                               string(digest_hex(&saved->image->id)));
                }
        }
        return all;
}

static struct json_object *oci_entry(const struct saved *saved, const char *tag)
{
        struct json_object *entry = json_object_new_object();
        json_object_object_add(entry, "mediaType", string(saved->manifest.media_type));
        json_object_object_add(entry, "digest", string(saved->image->manifest.text));
        json_object_object_add(entry, "size", json_object_new_int64((int64_t)saved->manifest_size));
        auto_reference reference = { 0 };
        if (tag && oci_reference_parse(tag, &reference, NULL) == 0) {
                struct json_object *annotations = json_object_new_object();
                auto_free char *canonical = oci_reference_format(&reference);
                json_object_object_add(annotations, "io.containerd.image.name", string(canonical));
                json_object_object_add(annotations, "org.opencontainers.image.ref.name",
                                       string(reference.tag));
                json_object_object_add(entry, "annotations", annotations);
        }
        return entry;
}

static struct json_object *oci_index(const struct saving *saving)
{
        struct json_object *index = json_object_new_object();
        struct json_object *manifests = json_object_new_array();
        for (size_t i = 0; i < saving->length; i++) {
                const struct saved *saved = &saving->images[i];
                for (char **tag = saved->tags; tag && *tag; tag++)
                        json_object_array_add(manifests, oci_entry(saved, *tag));
                if (!saved->tags)
                        json_object_array_add(manifests, oci_entry(saved, NULL));
        }
        json_object_object_add(index, "schemaVersion", json_object_new_int(2));
        json_object_object_add(index, "mediaType", string(OCI_MEDIA_INDEX));
        json_object_object_add(index, "manifests", manifests);
        return index;
}

static int write_image(struct saving *saving, const struct saved *saved, struct err *err)
{
        int r = write_blob(saving, saved->image->manifest.text, err);
        if (r == 0)
                r = write_blob(saving, saved->image->id.text, err);
        for (size_t i = 0; r == 0 && i < saved->manifest.layers_length; i++)
                r = write_blob(saving, saved->manifest.layers[i].digest, err);
        return r < 0 ? (err_wrap(err, "image %.19s", saved->image->id.text), r) : 0;
}

static int write_all(struct saving *saving, struct err *err)
{
        static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
        int r = tar_writer_create(write_fd, saving, &saving->writer, err);
        if (r == 0)
                r = write_entry(saving, "blobs", S_IFDIR | 0755, 0, err);
        if (r == 0)
                r = write_entry(saving, "blobs/sha256", S_IFDIR | 0755, 0, err);
        for (size_t i = 0; r == 0 && i < saving->length; i++)
                r = write_image(saving, &saving->images[i], err);
        if (r == 0)
                r = write_json(saving, "index.json", oci_index(saving), err);
        if (r == 0)
                r = write_json(saving, "manifest.json", docker_index(saving), err);
        if (r == 0)
                r = write_text(saving, "oci-layout", layout, strlen(layout), err);
        if (r == 0)
                r = write_json(saving, "repositories", docker_repositories(saving), err);
        return r < 0 ? r : tar_writer_finish(saving->writer, err);
}

int image_save(struct image_store *st, char *const *names, size_t length, int out_fd,
               struct err *err)
{
        struct saving saving = { .st = st, .fd = out_fd };
        int r = 0;
        for (size_t i = 0; r == 0 && i < length; i++)
                r = add_name(&saving, names[i], err);
        if (r == 0)
                r = write_all(&saving, err);
        tar_writer_destroy(saving.writer);
        for (size_t i = 0; i < saving.length; i++) {
                image_unref(saving.images[i].image);
                strv_free(saving.images[i].tags);
                free(saving.images[i].manifest_text);
                oci_manifest_finish(&saving.images[i].manifest);
        }
        free(saving.images);
        table_finish(&saving.written);
        return r;
}
