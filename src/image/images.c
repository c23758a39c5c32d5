/* Looking images up: by name, by id, all of them. */
#include <ctype.h>
#include <fnmatch.h>

#include "base/clock.h"
#include "image/image_store.h"
#include "oci/reference.h"

#define ID_HEX_LENGTH 64

void image_short_id(const struct digest *id, char text[IMAGE_SHORT_SIZE])
{
        snprintf(text, IMAGE_SHORT_SIZE, "%.12s", digest_hex(id));
}

struct image *image_ref(struct image *image)
{
        atomic_fetch_add(&image->references, 1);
        return image;
}

void image_unref(struct image *image)
{
        if (!image || atomic_fetch_sub(&image->references, 1) > 1)
                return;
        strv_free(image->repo_tags);
        strv_free(image->repo_digests);
        strv_free(image->references_canonical);
        oci_image_config_finish(&image->spec);
        free(image->spec_text);
        free(image->architecture);
        free(image->os);
        free(image->variant);
        free(image->chain_ids);
        free(image->layer_sizes_bytes);
        free(image);
}

/* ---- decoding ---------------------------------------------------------- */

static char *or_empty(const char *text)
{
        return xstrdup(text ? text : "");
}

/* Names that point at the image: tags first come, first served, as sorted by key. */
static void take_names(struct image *image, const struct store_value *refs, size_t length)
{
        for (size_t i = 0; i < length; i++) {
                struct ref_record ref = { 0 };
                auto_reference reference = { 0 };
                const char *canonical = str_after(refs[i].key, RECORD_REF);
                if (record_decode(&refs[i], &ref_record_shape, &ref, NULL) < 0)
                        continue;
                bool ours = streq(ref.image, image->id.text);
                json_free(&ref_record_shape, &ref);
                if (!ours || oci_reference_parse_name(canonical, &reference, NULL) < 0)
                        continue;
                strv_push(&image->references_canonical, canonical);
                strv_push_take(digest_is_set(&reference.digest) ? &image->repo_digests
                                                                : &image->repo_tags,
                               oci_reference_familiar(&reference));
        }
}

static int take_layers(struct image_store *st, struct image *image,
                       const struct image_record *record, struct err *err)
{
        size_t length = strv_length(record->chain_ids);
        image->chain_ids = xcalloc(length + 1, sizeof(*image->chain_ids));
        image->layer_sizes_bytes = xcalloc(length + 1, sizeof(uint64_t));
        image->layers_length = length;
        for (size_t i = 0; i < length; i++) {
                struct layer_record layer = { 0 };
                int r = digest_parse(record->chain_ids[i], &image->chain_ids[i], err);
                if (r < 0)
                        return err_wrap(err, "state record of image %s", record->id), r;
                if (record_get(st->store, RECORD_LAYER, digest_hex(&image->chain_ids[i]),
                               &layer_record_shape, &layer, NULL, NULL) < 0)
                        continue; /* lost; verify and use tell so */
                image->layer_sizes_bytes[i] = layer.size_bytes;
                image->size_bytes += layer.size_bytes;
                json_free(&layer_record_shape, &layer);
        }
        return 0;
}

int image_load_record(struct image_store *st, const struct image_record *record,
                      const struct store_value *refs, size_t refs_length, struct image **ret,
                      struct err *err)
{
        auto_image image = new0(struct image);
        size_t size;
        atomic_init(&image->references, 1);
        int r = digest_parse(record->id, &image->id, err);
        if (r == 0)
                r = digest_parse(record->manifest, &image->manifest, err);
        if (r == 0)
                r = content_read(st->content, &image->id, OCI_IMAGE_CONFIG_SIZE_MAX,
                                 &image->spec_text, &size, err);
        if (r == 0)
                r = oci_image_config_parse(image->spec_text, size, &image->spec, err);
        if (r == 0)
                r = take_layers(st, image, record, err);
        if (r < 0)
                return err_wrap(err, "image %.19s", record->id), r;
        take_names(image, refs, refs_length);
        image->pulled_ns = record->pulled_ns;
        if (image->spec.created)
                clock_parse(image->spec.created, &image->created_ns);
        image->architecture = or_empty(image->spec.architecture);
        image->os = or_empty(image->spec.os);
        image->variant = or_empty(image->spec.variant);
        *ret = take_ptr(image);
        return 0;
}

int image_get(struct image_store *st, const struct digest *id, struct image **ret, struct err *err)
{
        struct image_record record = { 0 };
        struct store_value *refs = NULL;
        size_t length = 0;
        int r = record_get(st->store, RECORD_IMAGE, digest_hex(id), &image_record_shape, &record,
                           NULL, err);
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "No such image: %s", id->text);
        if (r == 0)
                r = store_list(st->store, RECORD_REF, &refs, &length, NULL, err);
        if (r == 0)
                r = image_load_record(st, &record, refs, length, ret, err);
        store_values_free(refs, length);
        json_free(&image_record_shape, &record);
        return r;
}

/* ---- resolving --------------------------------------------------------- */

static int find_reference(struct image_store *st, const char *canonical, struct digest *ret)
{
        struct ref_record ref = { 0 };
        int r = record_get(st->store, RECORD_REF, canonical, &ref_record_shape, &ref, NULL, NULL);
        if (r == 0)
                r = digest_parse(ref.image, ret, NULL);
        json_free(&ref_record_shape, &ref);
        return r;
}

/* A tag or digest reference. -ENOENT, -EINVAL. */
static int find_name(struct image_store *st, const char *name, struct digest *ret)
{
        auto_reference reference = { 0 };
        int r = oci_reference_parse(name, &reference, NULL);
        if (r < 0)
                return r;
        auto_free char *base = oci_reference_name(&reference);
        auto_free char *canonical = digest_is_set(&reference.digest)
                                            ? xasprintf("%s@%s", base, reference.digest.text)
                                            : xasprintf("%s:%s", base, reference.tag);
        return find_reference(st, canonical, ret);
}

static bool is_hex(const char *text)
{
        size_t n = strspn(text, "0123456789abcdef");
        return n > 0 && n <= ID_HEX_LENGTH && text[n] == '\0';
}

static int find_id(struct image_store *st, const char *text, struct digest *ret, struct err *err)
{
        const char *hex = str_after(text, "sha256:");
        struct store_value *values = NULL;
        size_t length = 0;
        hex = hex ? hex : text;
        if (!is_hex(hex))
                return -ENOENT;
        auto_free char *prefix = xasprintf(RECORD_IMAGE "%s", hex);
        int r = store_list(st->store, prefix, &values, &length, NULL, err);
        if (r == 0 && length == 0)
                r = -ENOENT;
        else if (r == 0 && length > 1)
                r = err_plain(err, EINVAL, "image id prefix '%s' is ambiguous: %zu images have it",
                              text, length);
        if (r == 0) {
                auto_free char *whole = xasprintf("sha256:%s",
                                                  str_after(values[0].key, RECORD_IMAGE));
                r = digest_parse(whole, ret, err);
        }
        store_values_free(values, length);
        return r;
}

int image_find(struct image_store *st, const char *name_or_id, struct digest *ret, bool *ret_by_id,
               struct err *err)
{
        bool by_id = false;
        struct err cause = { 0 };
        int r = str_starts(name_or_id, "sha256:") ? -ENOENT : find_name(st, name_or_id, ret);
        if (r < 0) {
                by_id = true;
                r = find_id(st, name_or_id, ret, &cause);
        }
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "No such image: %s", name_or_id);
        if (r < 0) {
                if (err)
                        *err = cause;
                return r;
        }
        if (ret_by_id)
                *ret_by_id = by_id;
        return 0;
}

int image_resolve(struct image_store *st, const char *name_or_id, struct image **ret,
                  struct err *err)
{
        struct digest id;
        int r = image_find(st, name_or_id, &id, NULL, err);
        if (r < 0)
                return r;
        r = image_get(st, &id, ret, err);
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "No such image: %s", name_or_id);
        return r;
}

int image_tag(struct image_store *st, const char *name_or_id, const char *new_reference,
              struct err *err)
{
        auto_reference reference = { 0 };
        struct digest id;
        int r = oci_reference_parse(new_reference, &reference, err);
        if (r < 0)
                return r;
        if (digest_is_set(&reference.digest))
                return err_plain(err, EINVAL, "refusing to create a tag with a digest reference");
        auto_free char *base = oci_reference_name(&reference);
        auto_free char *canonical = xasprintf("%s:%s", base, reference.tag);
        pthread_mutex_lock(&st->lock);
        r = image_find(st, name_or_id, &id, NULL, err);
        if (r == 0) {
                struct image_record record = { 0 };
                r = record_get(st->store, RECORD_IMAGE, digest_hex(&id), &image_record_shape,
                               &record, NULL, err);
                struct ref_record ref = { .image = id.text, .manifest = record.manifest };
                if (r == 0)
                        r = record_put(st->store, RECORD_REF, canonical, &ref_record_shape, &ref,
                                       err);
                json_free(&image_record_shape, &record);
        }
        pthread_mutex_unlock(&st->lock);
        return r;
}

/* ---- listing ----------------------------------------------------------- */

void image_list_free(struct image **list, size_t length)
{
        for (size_t i = 0; i < length; i++)
                image_unref(list[i]);
        free(list);
}

int image_load_all(struct image_store *st, struct image ***ret, size_t *ret_length, struct err *err)
{
        struct store_value *records = NULL, *refs = NULL;
        size_t length = 0, refs_length = 0, loaded = 0;
        int r = store_list(st->store, RECORD_IMAGE, &records, &length, NULL, err);
        if (r == 0)
                r = store_list(st->store, RECORD_REF, &refs, &refs_length, NULL, err);
        struct image **list = xcalloc(length + 1, sizeof(*list));
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct image_record record = { 0 };
                struct err cause = { 0 };
                /* One damaged image must not hide the others. */
                if (record_decode(&records[i], &image_record_shape, &record, &cause) < 0 ||
                    image_load_record(st, &record, refs, refs_length, &list[loaded], &cause) < 0)
                        image_notice(st, "%s", err_text(&cause));
                else
                        loaded++;
                json_free(&image_record_shape, &record);
        }
        store_values_free(records, length);
        store_values_free(refs, refs_length);
        if (r < 0) {
                image_list_free(list, loaded);
                return r;
        }
        *ret = list;
        *ret_length = loaded;
        return 0;
}

/* "busybox" matches any tag of it, "busybox:1*" tags, patterns do not cross '/'. */
static bool reference_matches(const char *pattern, const char *familiar)
{
        auto_reference reference = { 0 };
        if (oci_reference_parse_name(familiar, &reference, NULL) < 0)
                return false;
        auto_free char *name = oci_reference_familiar_name(&reference);
        return fnmatch(pattern, familiar, FNM_PATHNAME) == 0 ||
               fnmatch(pattern, name, FNM_PATHNAME) == 0;
}

static bool any_reference_matches(const struct image_filter *filter, const struct image *image)
{
        for (char **pattern = filter->references; *pattern; pattern++) {
                for (char **tag = image->repo_tags; tag && *tag; tag++)
                        if (reference_matches(*pattern, *tag))
                                return true;
                for (char **name = image->repo_digests; name && *name; name++)
                        if (reference_matches(*pattern, *name))
                                return true;
        }
        return false;
}

static bool has_label(const struct image *image, const char *wanted)
{
        for (char **label = image->spec.config.labels; label && *label; label++) {
                size_t key = strcspn(wanted, "=");
                if (wanted[key] ? streq(*label, wanted)
                                : strncmp(*label, wanted, key) == 0 && (*label)[key] == '=')
                        return true;
        }
        return false;
}

static bool matches(const struct image_filter *filter, const struct image *image, int64_t before_ns,
                    int64_t since_ns)
{
        if (filter->dangling >= 0 && (filter->dangling > 0) != (image->repo_tags == NULL))
                return false;
        if (filter->references && *filter->references && !any_reference_matches(filter, image))
                return false;
        for (char **label = filter->labels; label && *label; label++)
                if (!has_label(image, *label))
                        return false;
        if (filter->until_ns && image->created_ns >= filter->until_ns)
                return false;
        return (!filter->before || image->created_ns < before_ns) &&
               (!filter->since || image->created_ns > since_ns);
}

static int newest_first(const void *a, const void *b)
{
        const struct image *x = *(struct image *const *)a, *y = *(struct image *const *)b;
        if (x->created_ns != y->created_ns)
                return x->created_ns < y->created_ns ? 1 : -1;
        if (x->pulled_ns != y->pulled_ns)
                return x->pulled_ns < y->pulled_ns ? 1 : -1;
        return strcmp(x->id.text, y->id.text);
}

static int created_of(struct image_store *st, const char *name, int64_t *ret_ns, struct err *err)
{
        if (!name)
                return 0;
        auto_image image = NULL;
        int r = image_resolve(st, name, &image, err);
        if (r == 0)
                *ret_ns = image->created_ns;
        return r;
}

int image_list(struct image_store *st, const struct image_filter *filter, struct image ***ret,
               size_t *ret_length, struct err *err)
{
        static const struct image_filter everything = { .dangling = -1 };
        int64_t before_ns = 0, since_ns = 0;
        struct image **list;
        size_t length, kept = 0;
        if (!filter)
                filter = &everything;
        int r = created_of(st, filter->before, &before_ns, err);
        if (r == 0)
                r = created_of(st, filter->since, &since_ns, err);
        if (r == 0)
                r = image_load_all(st, &list, &length, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < length; i++) {
                if (matches(filter, list[i], before_ns, since_ns))
                        list[kept++] = list[i];
                else
                        image_unref(list[i]);
        }
        qsort(list, kept, sizeof(*list), newest_first);
        *ret = list;
        *ret_length = kept;
        return 0;
}

/* ---- history ----------------------------------------------------------- */

void image_history_free(struct image_history_entry *entries, size_t length)
{
        for (size_t i = 0; i < length; i++) {
                free(entries[i].id);
                free(entries[i].created_by);
                free(entries[i].comment);
                strv_free(entries[i].tags);
        }
        free(entries);
}

int image_history(struct image_store *st, const char *name_or_id, struct image_history_entry **ret,
                  size_t *ret_length, struct err *err)
{
        auto_image image = NULL;
        int r = image_resolve(st, name_or_id, &image, err);
        if (r < 0)
                return r;
        const struct oci_image_config *spec = &image->spec;
        /* Layers that no history tells of are listed too, as docker does not, but
         * their sizes would be missing otherwise. */
        size_t told = 0, length = spec->history_length;
        for (size_t i = 0; i < length; i++)
                told += !spec->history[i].empty_layer;
        size_t untold = image->layers_length > told ? image->layers_length - told : 0;
        struct image_history_entry *entries = xcalloc(length + untold + 1, sizeof(*entries));
        size_t layer = 0;
        for (size_t i = 0; i < length + untold; i++) {
                /* Newest first: entry i stands at the end. */
                struct image_history_entry *entry = &entries[length + untold - 1 - i];
                const struct oci_history *history = i < length ? &spec->history[i] : NULL;
                entry->id = xstrdup("<missing>");
                entry->created_by = or_empty(history ? history->created_by : NULL);
                entry->comment = or_empty(history ? history->comment : NULL);
                if (history && history->created)
                        clock_parse(history->created, &entry->created_ns);
                if ((!history || !history->empty_layer) && layer < image->layers_length)
                        entry->size_bytes = image->layer_sizes_bytes[layer++];
        }
        if (length + untold > 0) {
                free(entries[0].id);
                entries[0].id = xstrdup(image->id.text);
                entries[0].tags = strv_copy(image->repo_tags);
        }
        *ret = entries;
        *ret_length = length + untold;
        return 0;
}
