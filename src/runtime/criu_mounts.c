#include "runtime/criu_mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/mountinfo.h"
#include "sys/resolve.h"

#define HIERARCHIES "/sys/fs/cgroup/"

static void add(struct criu_mounts *to, char *key, char *value)
{
        to->pairs = xrealloc(to->pairs, to->length + 1, sizeof(*to->pairs));
        to->pairs[to->length++] = (struct criu_pair){ .key = key, .value = value };
}

void criu_mounts_finish(struct criu_mounts *mounts)
{
        for (size_t i = 0; i < mounts->length; i++) {
                free(mounts->pairs[i].key);
                free(mounts->pairs[i].value);
        }
        free(mounts->pairs);
        *mounts = (struct criu_mounts){ 0 };
}

struct entry { /* a line of mountinfo */
        uint64_t id, parent;
        char *root, *point;
        bool cgroup_v1;
        char *name;  /* of an external mount */
        bool inside; /* of the container's own, whatever is above it */
};

struct table {
        struct entry *entries;
        size_t length;
};

static void finish_table(struct table *table)
{
        for (size_t i = 0; i < table->length; i++) {
                free(table->entries[i].root);
                free(table->entries[i].point);
                free(table->entries[i].name);
        }
        free(table->entries);
}

#define auto_table __attribute__((cleanup(finish_table))) struct table

static int read_table(const char *path, struct table *ret, struct err *err)
{
        auto_strv lines = NULL;
        int r = mountinfo_read(path, &lines, err);
        if (r < 0)
                return r;
        ret->entries = xcalloc(strv_length(lines) + 1, sizeof(*ret->entries));
        for (char **line = lines; *line; line++) {
                auto_strv fields = str_split(*line, ' ');
                if (strv_length(fields) < MOUNTINFO_FIELDS_MIN)
                        continue;
                struct entry *entry = &ret->entries[ret->length++];
                *entry = (struct entry){ .root = mountinfo_unescape(fields[3]),
                                         .point = mountinfo_unescape(fields[4]),
                                         .cgroup_v1 = strstr(*line, " - cgroup ") };
                (void)str_to_u64(fields[0], &entry->id);
                (void)str_to_u64(fields[1], &entry->parent);
        }
        return 0;
}

static struct entry *find_id(struct table *table, uint64_t id)
{
        for (size_t i = 0; i < table->length; i++)
                if (table->entries[i].id == id)
                        return &table->entries[i];
        return NULL;
}

/* What is mounted at a path of the container's tree, or NULL where nothing is. */
static struct entry *find_mount(struct table *table, int root_fd, const char *path,
                                mode_t *ret_mode)
{
        struct statx st;
        auto_fd fd = -1;
        if (resolve_open(root_fd, path, O_PATH, 0, &fd, NULL) < 0 ||
            statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_TYPE, &st) < 0 ||
            !(st.stx_mask & STATX_MNT_ID))
                return NULL;
        if (!(st.stx_attributes & STATX_ATTR_MOUNT_ROOT)) /* something in it */
                return NULL;
        if (ret_mode)
                *ret_mode = st.stx_mode;
        return find_id(table, st.stx_mnt_id);
}

static void set_name(struct entry *entry, const char *name)
{
        if (entry && !entry->name)
                entry->name = xstrdup(name);
}

static bool shows_own_cgroups(const struct plan *plan)
{
        for (size_t i = 0; i < plan->joins_length; i++)
                if (plan->joins[i].kind == NAMESPACE_CGROUP)
                        return true;
        return plan->new_namespaces & CLONE_NEWCGROUP;
}

static void name_cgroups(const struct plan *plan, const char *destination, struct table *table)
{
        for (size_t i = 0; i < table->length && !shows_own_cgroups(plan); i++) {
                struct entry *entry = &table->entries[i];
                const char *rest = str_after(entry->point, destination);
                if (rest && *rest == '/' && entry->cgroup_v1)
                        set_name(entry, entry->point);
        }
}

static void name_mounts(const struct plan *plan, int root_fd, struct table *table)
{
        for (size_t i = plan->mounts_length; i-- > 0;) { /* the last one there is on top */
                const struct plan_mount *mount = &plan->mounts[i];
                const char *at = mount->oci->destination;
                struct entry *entry = find_mount(table, root_fd, at, NULL);
                if (mount->kind == PLAN_MOUNT_CGROUP)
                        name_cgroups(plan, at, table);
                if (mount->kind == PLAN_MOUNT_BIND)
                        set_name(entry, at);
                else if (entry && !entry->name && mount->kind != PLAN_MOUNT_REMOUNT)
                        entry->inside = true;
        }
        for (size_t i = 0; i < plan->devices_length; i++) {
                const char *at = plan->devices[i].path;
                set_name(find_mount(table, root_fd, at, NULL), at);
        }
        const struct oci_linux *linux_ = plan->spec->linux_;
        for (char **path = linux_->masked_paths; path && *path; path++) {
                mode_t mode = 0;
                struct entry *entry = find_mount(table, root_fd, *path, &mode);
                if (entry && S_ISCHR(mode))
                        set_name(entry, "/dev/null");
                else if (entry && !entry->name)
                        entry->inside = true;
        }
}

/* What a recursive bind brought along. Lines of children come after their parents'. */
static void name_children(struct table *table)
{
        for (size_t i = 0; i < table->length; i++) {
                struct entry *entry = &table->entries[i];
                const struct entry *parent = find_id(table, entry->parent);
                if (entry->name || entry->inside || !parent || !parent->name || parent == entry)
                        continue;
                const char *rest = str_after(entry->point, parent->point);
                if (rest && *rest == '/')
                        entry->name = xasprintf("%s%s", parent->name, rest);
        }
}

int criu_mounts_find(const struct plan *plan, pid_t pid, struct criu_mounts *ret, struct err *err)
{
        char path[48];
        auto_table table = { 0 };
        snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
        int r = read_table(path, &table, err);
        if (r < 0)
                return r;
        snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
        auto_fd root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return err_set(err, errno, "open '%s'", path);
        name_mounts(plan, root, &table);
        name_children(&table);
        *ret = (struct criu_mounts){ 0 };
        for (size_t i = 0; i < table.length; i++)
                if (table.entries[i].name)
                        add(ret, xstrdup(table.entries[i].point), xstrdup(table.entries[i].name));
        return 0;
}

static void prepare_bind(const struct plan_mount *mount, struct table *host, struct criu_mounts *to)
{
        const char *at = mount->oci->destination;
        add(to, xstrdup(at), xstrdup(mount->source));
        auto_free char *real = realpath(mount->source, NULL);
        if (!real || !mount->options.recursive)
                return;
        for (size_t i = 0; i < host->length; i++) {
                const char *point = host->entries[i].point;
                const char *rest = streq(real, "/") ? point : str_after(point, real);
                if (rest && *rest == '/' && rest[1])
                        add(to, xasprintf("%s%s", at, rest), xstrdup(point));
        }
}

static void prepare_cgroups(const char *destination, char *const *cgroups, struct criu_mounts *to)
{
        for (char *const *entry = cgroups; entry && *entry; entry++) {
                const char *directory = strchr(*entry, '=') + 1;
                const char *below = str_after(directory, HIERARCHIES);
                if (below && **entry != '=')
                        add(to, xasprintf("%s/%.*s", destination, (int)strcspn(below, "/"), below),
                            xstrdup(directory));
        }
}

int criu_mounts_prepare(const struct plan *plan, char *const *cgroups, struct criu_mounts *ret,
                        struct err *err)
{
        auto_table host = { 0 };
        int r = read_table(MOUNTINFO_SELF, &host, err);
        if (r < 0)
                return r;
        *ret = (struct criu_mounts){ 0 };
        for (size_t i = 0; i < plan->mounts_length; i++) {
                const struct plan_mount *mount = &plan->mounts[i];
                if (mount->kind == PLAN_MOUNT_BIND)
                        prepare_bind(mount, &host, ret);
                else if (mount->kind == PLAN_MOUNT_CGROUP)
                        prepare_cgroups(mount->oci->destination, cgroups, ret);
        }
        for (size_t i = 0; i < plan->devices_length; i++)
                add(ret, xstrdup(plan->devices[i].path), xstrdup(plan->devices[i].path));
        add(ret, xstrdup("/dev/null"), xstrdup("/dev/null"));
        return 0;
}

/* The mount that is at the destination of the `index`-th already, and what follows there; NULL
 * for the rootfs. */
static const struct plan_mount *mount_around(const struct plan *plan, size_t index,
                                             const char **ret_rest)
{
        const char *at = plan->mounts[index].oci->destination;
        const struct plan_mount *nearest = NULL;
        *ret_rest = at;
        for (size_t i = 0; i < index; i++) {
                const char *rest = str_after(at, plan->mounts[i].oci->destination);
                if (!rest || *rest != '/' || strlen(rest) > strlen(*ret_rest))
                        continue;
                nearest = &plan->mounts[i];
                *ret_rest = rest;
        }
        return nearest;
}

/* In the rootfs, or in what is bound around it. The content of other mounts CRIU makes. */
static int make_target(const struct plan *plan, size_t index, struct err *err)
{
        const struct plan_mount *mount = &plan->mounts[index];
        const char *rest;
        const struct plan_mount *around = mount_around(plan, index, &rest);
        struct stat st = { .st_mode = S_IFDIR };
        auto_fd fd = -1;
        if (mount->kind == PLAN_MOUNT_REMOUNT || (around && around->kind != PLAN_MOUNT_BIND))
                return 0;
        if (mount->kind == PLAN_MOUNT_BIND && stat(mount->source, &st) < 0)
                return err_set(err, errno, "source '%s' of the mount at '%s'", mount->source,
                               mount->oci->destination);
        const char *tree = around ? around->source : plan->rootfs;
        auto_fd root = open(tree, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return err_set(err, errno, "open '%s'", tree);
        int r = S_ISDIR(st.st_mode) ? resolve_make_dir(root, rest, 0755, &fd, err)
                                    : resolve_make_file(root, rest, 0755, &fd, err);
        return r < 0 ? err_wrap(err, "mount point '%s'", mount->oci->destination) : 0;
}

int criu_mounts_make_targets(const struct plan *plan, struct err *err)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < plan->mounts_length; i++)
                r = make_target(plan, i, err);
        return r;
}
