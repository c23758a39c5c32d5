#include "engine/mounts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/path.h"
#include "base/rand.h"
#include "base/str.h"
#include "engine/names.h"

#define ANONYMOUS_LENGTH 64

static void mount_finish(struct instance_mount *m)
{
        free(m->type);
        free(m->name);
        free(m->source);
        free(m->destination);
        free(m->driver);
        free(m->mode);
        free(m->propagation);
        free(m->options);
}

void instance_mounts_free(struct instance_mount *mounts, size_t length)
{
        for (size_t i = 0; i < length; i++)
                mount_finish(&mounts[i]);
        free(mounts);
}

void mount_plan_finish(struct mount_plan *plan)
{
        instance_mounts_free(plan->mounts, plan->mounts_length);
        for (size_t i = 0; i < plan->volumes_length; i++) {
                free(plan->volumes[i].name);
                strv_free(plan->volumes[i].labels);
        }
        free(plan->volumes);
        strv_free(plan->host_dirs);
        strv_free(plan->host_required);
        *plan = (struct mount_plan){ 0 };
}

static struct instance_mount *find_mount(struct mount_plan *plan, const char *destination)
{
        for (size_t i = 0; i < plan->mounts_length; i++)
                if (streq(plan->mounts[i].destination, destination))
                        return &plan->mounts[i];
        return NULL;
}

/* Takes what `mount` points to, also on failure. */
static int add_mount(struct mount_plan *plan, struct instance_mount mount, struct err *err)
{
        int r = 0;
        if (streq(mount.destination, "/"))
                r = err_plain(err, EINVAL, "invalid specification: destination can't be '/'");
        else if (find_mount(plan, mount.destination))
                r = err_plain(err, EINVAL, "Duplicate mount point: %s", mount.destination);
        if (r < 0) {
                mount_finish(&mount);
                return r;
        }
        plan->mounts = xrealloc(plan->mounts, plan->mounts_length + 1, sizeof(*plan->mounts));
        plan->mounts[plan->mounts_length++] = mount;
        return 0;
}

static void need_volume(struct mount_plan *plan, const char *name, bool anonymous,
                        char *const *labels)
{
        for (size_t i = 0; i < plan->volumes_length; i++)
                if (streq(plan->volumes[i].name, name))
                        return;
        plan->volumes = xrealloc(plan->volumes, plan->volumes_length + 1, sizeof(*plan->volumes));
        plan->volumes[plan->volumes_length++] = (struct mount_volume){
                .name = xstrdup(name),
                .anonymous = anonymous,
                .labels = labels ? strv_copy(labels) : NULL,
        };
}

/* A volume at `destination` (taken); `name` NULL draws one. */
static int add_volume(struct mount_plan *plan, const char *volumes_dir, const char *name,
                      char *destination, const char *mode, bool read_write, bool copy_up,
                      char *const *labels, struct err *err)
{
        char drawn[ANONYMOUS_LENGTH + 1];
        bool anonymous = str_empty(name);
        if (anonymous) {
                rand_hex(drawn, ANONYMOUS_LENGTH);
                name = drawn;
        } else if (!name_is_valid(name)) {
                int r = err_plain(
                        err, EINVAL,
                        "\"%s\" includes invalid characters for a local volume name, only "
                        "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass "
                        "a host directory, use absolute path",
                        name);
                free(destination);
                return r;
        }
        struct instance_mount mount = {
                .type = xstrdup("volume"),
                .name = xstrdup(name),
                .source = xasprintf("%s/%s/_data", volumes_dir, name),
                .destination = destination,
                .driver = xstrdup("local"),
                .mode = xstrdup(mode ? mode : ""),
                .propagation = xstrdup(""),
                .read_write = read_write,
                .copy_up = copy_up,
        };
        int r = add_mount(plan, mount, err);
        if (r == 0)
                need_volume(plan, name, anonymous, labels);
        return r;
}

struct bind_mode {
        bool read_only, no_copy;
        const char *propagation;
};

static const char *const propagations[] = { "private", "rprivate", "slave", "rslave", NULL };

static int parse_mode(const char *text, struct bind_mode *ret, struct err *err)
{
        static const char *const ignored[] = { "rw",        "z",          "Z", "cached",
                                               "delegated", "consistent", NULL };
        *ret = (struct bind_mode){ .propagation = "rprivate" };
        auto_strv words = str_split(text, ',');
        for (char **word = words; *word; word++) {
                bool known = !**word;
                for (const char *const *p = propagations; *p; p++)
                        if (streq(*p, *word)) {
                                ret->propagation = *p;
                                known = true;
                        }
                for (const char *const *i = ignored; *i; i++)
                        known = known || streq(*i, *word);
                if (streq(*word, "ro"))
                        ret->read_only = known = true;
                if (streq(*word, "nocopy") || streq(*word, "volume-nocopy"))
                        ret->no_copy = known = true;
                if (streq(*word, "shared") || streq(*word, "rshared"))
                        return err_plain(err, ENOTSUP,
                                         "mount propagation '%s' is not possible: an instance's "
                                         "mounts never reach the host; use rslave",
                                         *word);
                if (!known)
                        return err_plain(err, EINVAL, "invalid mode: %s", text);
        }
        return 0;
}

static int add_bind_mount(struct mount_plan *plan, const char *source, char *destination,
                          const char *mode, bool read_only, const char *propagation,
                          bool non_recursive, bool must_exist, struct err *err)
{
        char *clean = NULL;
        int r = path_clean(source, &clean, err);
        if (r < 0) {
                free(destination);
                return r;
        }
        strv_push(must_exist ? &plan->host_required : &plan->host_dirs, clean);
        return add_mount(plan,
                         (struct instance_mount){
                                 .type = xstrdup("bind"),
                                 .source = clean,
                                 .destination = destination,
                                 .mode = xstrdup(mode ? mode : ""),
                                 .propagation = xstrdup(propagation),
                                 .read_write = !read_only,
                                 .non_recursive = non_recursive,
                         },
                         err);
}

/* "SOURCE:DESTINATION[:MODE]" or "DESTINATION". */
static int add_bind(struct mount_plan *plan, const char *text, const char *volumes_dir,
                    struct err *err)
{
        auto_strv parts = str_split(text, ':');
        size_t length = strv_length(parts);
        if (length > 3 || !*parts[0] || !*parts[length - 1])
                return err_plain(err, EINVAL, "invalid volume specification: '%s'", text);
        struct bind_mode mode;
        int r = parse_mode(length == 3 ? parts[2] : "", &mode, err);
        if (r < 0)
                return err_wrap(err, "invalid volume specification '%s'", text);
        char *destination;
        if (path_clean(length == 1 ? parts[0] : parts[1], &destination, NULL) < 0)
                return err_plain(
                        err, EINVAL,
                        "invalid volume specification: '%s': invalid mount config for type "
                        "\"%s\": invalid mount path: '%s' mount path must be absolute",
                        text, parts[0][0] == '/' ? "bind" : "volume",
                        length == 1 ? parts[0] : parts[1]);
        if (length > 1 && parts[0][0] == '/')
                return add_bind_mount(plan, parts[0], destination, length == 3 ? parts[2] : "",
                                      mode.read_only, mode.propagation, false, false, err);
        return add_volume(plan, volumes_dir, length == 1 ? NULL : parts[0], destination,
                          length == 3 ? parts[2] : "z", !mode.read_only, !mode.no_copy, NULL, err);
}

static int add_tmpfs(struct mount_plan *plan, const char *destination, const char *options,
                     struct err *err)
{
        char *clean = NULL;
        int r = path_clean(destination, &clean, err);
        if (r < 0)
                return err_wrap(err, "invalid mount config for type \"tmpfs\"");
        return add_mount(plan,
                         (struct instance_mount){
                                 .type = xstrdup("tmpfs"),
                                 .source = xstrdup(""),
                                 .destination = clean,
                                 .mode = xstrdup(""),
                                 .propagation = xstrdup(""),
                                 .options = xstrdup(options),
                                 .read_write = true,
                         },
                         err);
}

static int add_tmpfs_request(struct mount_plan *plan, const struct mount_request *m,
                             struct err *err)
{
        const struct tmpfs_options *o = m->tmpfs_options;
        if (o && o->options && json_object_get_type(o->options) == json_type_array &&
            json_object_array_length(o->options) > 0)
                return err_plain(err, ENOTSUP,
                                 "tmpfs options in --mount are not implemented; use "
                                 "--tmpfs");
        char text[128] = "";
        int used = 0;
        if (o && o->size_bytes > 0)
                used = snprintf(text, sizeof(text), "size=%lld,", (long long)o->size_bytes);
        if (o && o->mode)
                used += snprintf(text + used, sizeof(text) - (size_t)used, "mode=%o,", o->mode);
        if (m->read_only)
                used += snprintf(text + used, sizeof(text) - (size_t)used, "ro,");
        if (used)
                text[used - 1] = '\0';
        return add_tmpfs(plan, m->target, text, err);
}

static int add_bind_request(struct mount_plan *plan, const struct mount_request *m,
                            char *destination, struct err *err)
{
        const struct bind_options *o = m->bind_options;
        struct bind_mode mode = { .propagation = "rprivate" };
        int r = 0;
        if (str_empty(m->source) || m->source[0] != '/')
                r = err_plain(err, EINVAL,
                              "invalid mount config for type \"bind\": invalid mount "
                              "path: '%s' mount path must be absolute",
                              m->source ? m->source : "");
        else if (o && !str_empty(o->propagation))
                r = parse_mode(o->propagation, &mode, err);
        if (r < 0) {
                free(destination);
                return r;
        }
        return add_bind_mount(plan, m->source, destination, "", m->read_only, mode.propagation,
                              o && o->non_recursive, !(o && o->create_mountpoint), err);
}

static int add_volume_request(struct mount_plan *plan, const struct mount_request *m,
                              char *destination, const char *volumes_dir, struct err *err)
{
        const struct volume_options *o = m->volume_options;
        int r = 0;
        if (o && !str_empty(o->subpath))
                r = err_plain(err, ENOTSUP, "volume-subpath is not implemented");
        struct json_object *name;
        if (r == 0 && o && o->driver_config &&
            json_object_get_type(o->driver_config) == json_type_object &&
            json_object_object_get_ex(o->driver_config, "Name", &name) &&
            !streq(json_object_get_string(name), "local") && *json_object_get_string(name))
                r = err_plain(err, EINVAL, "error looking up volume plugin %s: plugin not found",
                              json_object_get_string(name));
        if (r < 0) {
                free(destination);
                return r;
        }
        return add_volume(plan, volumes_dir, m->source, destination, "z", !m->read_only,
                          !(o && o->no_copy), o ? o->labels : NULL, err);
}

static int add_request(struct mount_plan *plan, const struct mount_request *m,
                       const char *volumes_dir, struct err *err)
{
        if (str_empty(m->target))
                return err_plain(err, EINVAL,
                                 "invalid mount config for type \"%s\": field Target must not be "
                                 "empty",
                                 m->type ? m->type : "");
        char *destination;
        int r = path_clean(m->target, &destination, err);
        if (r < 0)
                return err_wrap(err, "invalid mount config for type \"%s\"",
                                m->type ? m->type : "");
        if (streq(m->type, "bind"))
                return add_bind_request(plan, m, destination, err);
        if (streq(m->type, "volume"))
                return add_volume_request(plan, m, destination, volumes_dir, err);
        free(destination);
        if (streq(m->type, "tmpfs"))
                return add_tmpfs_request(plan, m, err);
        return err_plain(err, ENOTSUP, "mount type \"%s\" unknown", m->type ? m->type : "");
}

static char *copy_or_null(const char *s)
{
        return s ? xstrdup(s) : NULL;
}

/* What is given by name outranks what another instance gives. */
static void add_donor(struct mount_plan *plan, const struct mount_donor *donor)
{
        for (size_t i = 0; i < donor->mounts_length; i++) {
                const struct instance_mount *m = &donor->mounts[i];
                if (streq(m->type, "tmpfs") || find_mount(plan, m->destination))
                        continue;
                add_mount(plan,
                          (struct instance_mount){
                                  .type = copy_or_null(m->type),
                                  .name = copy_or_null(m->name),
                                  .source = copy_or_null(m->source),
                                  .destination = copy_or_null(m->destination),
                                  .driver = copy_or_null(m->driver),
                                  .mode = copy_or_null(m->mode),
                                  .propagation = copy_or_null(m->propagation),
                                  .read_write = m->read_write && !donor->read_only,
                                  .non_recursive = m->non_recursive,
                          },
                          NULL);
                if (m->name)
                        need_volume(plan, m->name, false, NULL);
        }
}

static unsigned depth(const char *path)
{
        unsigned slashes = 0;
        for (; *path; path++)
                slashes += *path == '/';
        return slashes;
}

static int by_depth(const void *a, const void *b)
{
        const struct instance_mount *x = a, *y = b;
        unsigned dx = depth(x->destination), dy = depth(y->destination);
        return dx != dy ? (dx > dy) - (dx < dy) : strcmp(x->destination, y->destination);
}

static int fill(struct mount_plan *plan, const struct instance_spec *spec,
                char *const *image_volumes, const struct mount_donor *donors, size_t donors_length,
                const char *volumes_dir, struct err *err)
{
        const struct host_config *host = &spec->host;
        int r = 0;
        for (char **bind = host->binds; r >= 0 && bind && *bind; bind++)
                r = add_bind(plan, *bind, volumes_dir, err);
        for (size_t i = 0; r >= 0 && i < host->mounts_length; i++)
                r = add_request(plan, &host->mounts[i], volumes_dir, err);
        for (char **tmpfs = host->tmpfs; r >= 0 && tmpfs && *tmpfs; tmpfs++) {
                const char *options;
                auto_free char *path = json_map_split(*tmpfs, &options);
                r = add_tmpfs(plan, path, options, err);
        }
        for (size_t i = 0; r >= 0 && i < donors_length; i++)
                add_donor(plan, &donors[i]);
        /* `-v /data` comes here too: the CLI puts it into Config.Volumes. */
        char *const *const sets[] = { spec->config.volumes, image_volumes };
        for (size_t i = 0; i < ELEMENTS(sets); i++) {
                for (char *const *path = sets[i]; r >= 0 && path && *path; path++) {
                        char *clean;
                        r = path_clean(*path, &clean, err);
                        if (r < 0)
                                break;
                        if (find_mount(plan, clean))
                                free(clean);
                        else
                                r = add_volume(plan, volumes_dir, NULL, clean, "", true, true, NULL,
                                               err);
                }
        }
        return r;
}

int mount_plan_make(const struct instance_spec *spec, char *const *image_volumes,
                    const struct mount_donor *donors, size_t donors_length, const char *volumes_dir,
                    struct mount_plan *ret, struct err *err)
{
        struct mount_plan plan = { 0 };
        int r = fill(&plan, spec, image_volumes, donors, donors_length, volumes_dir, err);
        if (r < 0) {
                mount_plan_finish(&plan);
                return r;
        }
        if (plan.mounts_length)
                qsort(plan.mounts, plan.mounts_length, sizeof(*plan.mounts), by_depth);
        *ret = plan;
        return 0;
}

int volumes_from_parse(const char *text, char **ret_name, bool *ret_read_only, struct err *err)
{
        const char *colon = strchr(text, ':');
        bool read_only = colon && streq(colon + 1, "ro");
        if (!*text || text == colon ||
            (colon && !read_only && !streq(colon + 1, "rw") && !streq(colon + 1, "z") &&
             !streq(colon + 1, "Z")))
                return err_plain(err, EINVAL, "invalid volumes-from specification: '%s'", text);
        *ret_name = colon ? xstrndup(text, (size_t)(colon - text)) : xstrdup(text);
        *ret_read_only = read_only;
        return 0;
}
