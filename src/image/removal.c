/* docker rmi and docker image prune: which names and images may go, in docker's
 * words. */
#include "image/image_store.h"
#include "oci/reference.h"

void image_removal_add(struct image_removal *removal, bool untagged, const char *name)
{
        removal->items = xrealloc(removal->items, removal->length + 1, sizeof(*removal->items));
        removal->items[removal->length++] = (struct image_removed){ .untagged = untagged,
                                                                    .name = xstrdup(name) };
}

void image_removal_finish(struct image_removal *removal)
{
        for (size_t i = 0; i < removal->length; i++)
                free(removal->items[i].name);
        free(removal->items);
        *removal = (struct image_removal){ 0 };
}

/* ---- names ------------------------------------------------------------- */

/* A name that points at the image. */
struct name {
        char *canonical; /* whole */
        char *familiar;
        char *repository;
        bool is_digest;
};

struct names {
        struct name *items;
        size_t length;
};

static void names_finish(struct names *names)
{
        for (size_t i = 0; i < names->length; i++) {
                free(names->items[i].canonical);
                free(names->items[i].familiar);
                free(names->items[i].repository);
        }
        free(names->items);
        *names = (struct names){ 0 };
}

static int names_of(struct image_store *st, const struct digest *id, struct names *ret,
                    struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int r = store_list(st->store, RECORD_REF, &values, &length, NULL, err);
        if (r < 0)
                return r;
        ret->items = xcalloc(length + 1, sizeof(*ret->items));
        for (size_t i = 0; i < length; i++) {
                struct ref_record ref = { 0 };
                auto_reference reference = { 0 };
                const char *canonical = str_after(values[i].key, RECORD_REF);
                if (record_decode(&values[i], &ref_record_shape, &ref, NULL) == 0 &&
                    streq(ref.image, id->text) &&
                    oci_reference_parse_name(canonical, &reference, NULL) == 0)
                        ret->items[ret->length++] = (struct name){
                                .canonical = xstrdup(canonical),
                                .familiar = oci_reference_familiar(&reference),
                                .repository = oci_reference_name(&reference),
                                .is_digest = digest_is_set(&reference.digest),
                        };
                json_free(&ref_record_shape, &ref);
        }
        store_values_free(values, length);
        return 0;
}

/* All names are of one repository, and at most one of them is a tag. */
static bool is_single(const struct names *names)
{
        size_t tags = 0;
        for (size_t i = 0; i < names->length; i++) {
                if (!streq(names->items[i].repository, names->items[0].repository))
                        return false;
                tags += !names->items[i].is_digest;
        }
        return names->length > 0 && tags <= 1;
}

static int untag(struct image_store *st, const struct name *name, struct image_removal *removal,
                 struct err *err)
{
        int r = record_delete(st->store, RECORD_REF, name->canonical, err);
        if (r == 0)
                image_removal_add(removal, true, name->familiar);
        return r;
}

static int untag_all(struct image_store *st, const struct names *names,
                     struct image_removal *removal, struct err *err)
{
        for (size_t i = 0; i < names->length; i++) {
                int r = untag(st, &names->items[i], removal, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- uses -------------------------------------------------------------- */

static const struct image_use *find_use(const struct digest *id, const struct image_use *uses,
                                        size_t length, bool running)
{
        for (size_t i = 0; i < length; i++)
                if (streq(uses[i].image_id, id->text) && uses[i].running == running)
                        return &uses[i];
        return NULL;
}

static int conflict(const struct digest *id, bool hard, struct err *err, const char *why,
                    const char *instance)
{
        char text[IMAGE_SHORT_SIZE];
        image_short_id(id, text);
        return err_plain(err, EBUSY, "conflict: unable to delete %s (%s) - %s%.12s", text,
                         hard ? "cannot be forced" : "must be forced", why, instance);
}

static int check_uses(const struct digest *id, bool force, const struct image_use *uses,
                      size_t length, struct err *err)
{
        const struct image_use *use = find_use(id, uses, length, true);
        if (use)
                return conflict(id, true, err, "image is being used by running container ",
                                use->instance_id);
        use = find_use(id, uses, length, false);
        if (use && !force)
                return conflict(id, false, err, "image is being used by stopped container ",
                                use->instance_id);
        return 0;
}

/* ---- remove ------------------------------------------------------------ */

static int delete_image(struct image_store *st, const struct digest *id,
                        struct image_removal *removal, struct err *err)
{
        int r = record_delete(st->store, RECORD_IMAGE, digest_hex(id), err);
        if (r < 0)
                return r;
        image_removal_add(removal, false, id->text);
        return 0;
}

static int remove_by_id(struct image_store *st, const struct digest *id, bool force,
                        const struct image_use *uses, size_t uses_length,
                        struct image_removal *removal, struct err *err)
{
        struct names names = { 0 };
        int r = names_of(st, id, &names, err);
        if (r == 0 && !force && names.length > 0 && !is_single(&names))
                r = conflict(id, false, err, "image is referenced in multiple repositories", "");
        if (r == 0)
                r = check_uses(id, force, uses, uses_length, err);
        if (r == 0)
                r = untag_all(st, &names, removal, err);
        if (r == 0)
                r = delete_image(st, id, removal, err);
        names_finish(&names);
        return r;
}

/* Digest names go with the last tag of their repository. */
static int untag_name(struct image_store *st, const struct names *names, const struct name *name,
                      struct image_removal *removal, size_t *ret_left, struct err *err)
{
        size_t tags_left = 0, left = 0;
        int r = untag(st, name, removal, err);
        for (size_t i = 0; i < names->length; i++)
                tags_left += &names->items[i] != name && !names->items[i].is_digest &&
                             streq(names->items[i].repository, name->repository);
        for (size_t i = 0; r == 0 && i < names->length; i++) {
                const struct name *other = &names->items[i];
                if (other == name)
                        continue;
                if (!name->is_digest && tags_left == 0 && other->is_digest &&
                    streq(other->repository, name->repository))
                        r = untag(st, other, removal, err);
                else
                        left++;
        }
        *ret_left = left;
        return r;
}

static const struct name *find_name(const struct names *names, const char *text)
{
        auto_reference reference = { 0 };
        if (oci_reference_parse(text, &reference, NULL) < 0)
                return NULL;
        auto_free char *base = oci_reference_name(&reference);
        auto_free char *canonical = digest_is_set(&reference.digest)
                                            ? xasprintf("%s@%s", base, reference.digest.text)
                                            : xasprintf("%s:%s", base, reference.tag);
        for (size_t i = 0; i < names->length; i++)
                if (streq(names->items[i].canonical, canonical))
                        return &names->items[i];
        return NULL;
}

static int remove_by_name(struct image_store *st, const struct digest *id, const char *text,
                          bool force, const struct image_use *uses, size_t uses_length,
                          struct image_removal *removal, struct err *err)
{
        struct names names = { 0 };
        size_t left = 0;
        int r = names_of(st, id, &names, err);
        const struct name *name = find_name(&names, text);
        if (r == 0 && !name)
                r = err_plain(err, ENOENT, "No such image: %s", text);
        const struct image_use *use = find_use(id, uses, uses_length, true);
        use = use ? use : find_use(id, uses, uses_length, false);
        if (r == 0 && !force && use && is_single(&names)) {
                char short_id[IMAGE_SHORT_SIZE];
                image_short_id(id, short_id);
                r = err_plain(err, EBUSY,
                              "conflict: unable to remove repository reference \"%s\" (must force) "
                              "- container %.12s is using its referenced image %s",
                              text, use->instance_id, short_id);
        }
        if (r == 0)
                r = untag_name(st, &names, name, removal, &left, err);
        /* Without a name but in use: it stays, dangling. */
        if (r == 0 && left == 0 && check_uses(id, force, uses, uses_length, NULL) == 0)
                r = delete_image(st, id, removal, err);
        names_finish(&names);
        return r;
}

int image_remove(struct image_store *st, const char *name_or_id, bool force,
                 const struct image_use *uses, size_t uses_length, struct image_removal *removal,
                 struct err *err)
{
        struct digest id;
        bool by_id;
        pthread_mutex_lock(&st->lock);
        int r = image_find(st, name_or_id, &id, &by_id, err);
        if (r == 0)
                r = by_id ? remove_by_id(st, &id, force, uses, uses_length, removal, err)
                          : remove_by_name(st, &id, name_or_id, force, uses, uses_length, removal,
                                           err);
        if (r == 0)
                r = image_sweep(st, removal, NULL, err);
        pthread_mutex_unlock(&st->lock);
        image_empty_trash(st);
        return r;
}

/* ---- prune ------------------------------------------------------------- */

static bool is_used(const struct digest *id, const struct image_use *uses, size_t length)
{
        return find_use(id, uses, length, true) || find_use(id, uses, length, false);
}

int image_prune(struct image_store *st, bool dangling_only, const struct image_filter *filter,
                const struct image_use *uses, size_t uses_length, struct image_removal *removal,
                struct err *err)
{
        struct image **list = NULL;
        size_t length = 0;
        struct image_filter wanted = filter ? *filter : (struct image_filter){ .dangling = -1 };
        if (dangling_only)
                wanted.dangling = 1;
        pthread_mutex_lock(&st->lock);
        int r = image_list(st, &wanted, &list, &length, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct names names = { 0 };
                if (is_used(&list[i]->id, uses, uses_length))
                        continue;
                r = names_of(st, &list[i]->id, &names, err);
                if (r == 0)
                        r = untag_all(st, &names, removal, err);
                if (r == 0)
                        r = delete_image(st, &list[i]->id, removal, err);
                names_finish(&names);
        }
        if (r == 0)
                r = leases_drop_abandoned(st, err);
        if (r == 0)
                r = image_sweep(st, removal, NULL, err);
        pthread_mutex_unlock(&st->lock);
        image_list_free(list, length);
        image_empty_trash(st);
        return r;
}
