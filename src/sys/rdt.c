#include "sys/rdt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"

#define MOUNTINFO_SIZE_MAX ((size_t)16 << 20)
#define SCHEMATA_SIZE_MAX  ((size_t)1 << 16)
#define DIRECTORY_MODE     0755

char *rdt_find_mount(const char *mountinfo)
{
        auto_strv lines = str_split(mountinfo, '\n');
        for (char **line = lines; *line; line++) {
                auto_strv fields = str_split(*line, ' ');
                if (strstr(*line, " - resctrl ") && strv_length(fields) > 4)
                        return xstrdup(fields[4]);
        }
        return NULL;
}

int rdt_mount(char **ret, struct err *err)
{
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_SIZE_MAX, &text, NULL, err);
        if (r < 0)
                return r;
        char *mount = rdt_find_mount(text);
        if (!mount)
                return err_plain(err, EOPNOTSUPP,
                                 "intelRdt needs the resctrl file system, which is not mounted; "
                                 "where the processor has it, mount -t resctrl resctrl "
                                 "/sys/fs/resctrl");
        *ret = mount;
        return 0;
}

static bool is_class_name(const char *name)
{
        static const char *const taken[] = { "", ".", "..", "info", "mon_groups", "mon_data" };
        for (size_t i = 0; i < ELEMENTS(taken); i++)
                if (streq(name, taken[i]))
                        return false;
        return !strchr(name, '/');
}

static void put_lines(struct buf *to, const char *text, bool without_bandwidth)
{
        auto_strv lines = str_split(text ? text : "", '\n');
        for (char **line = lines; *line; line++) {
                const char *start = *line + strspn(*line, " \t");
                if (*start && !(without_bandwidth && str_starts(start, "MB:")))
                        buf_printf(to, "%s\n", start);
        }
}

/* All lines that are asked for. Those of memory bandwidth have a member of their own, and
 * do not count where they stand among the caches'. */
static char *wanted_schemata(const struct rdt_request *request)
{
        auto_buf text = { 0 };
        put_lines(&text, request->l3_cache, true);
        put_lines(&text, request->memory_bandwidth, false);
        for (char *const *line = request->schemata; line && *line; line++)
                put_lines(&text, *line, false);
        return buf_take(&text);
}

/* "0=07F" and "0=7f" are the same. */
static bool same_share(const char *a, const char *b)
{
        const char *a_value = strchr(a, '='), *b_value = strchr(b, '=');
        if (!a_value || !b_value || a_value - a != b_value - b ||
            memcmp(a, b, (size_t)(a_value - a)) != 0)
                return false;
        a_value += 1 + strspn(a_value + 1, "0");
        b_value += 1 + strspn(b_value + 1, "0");
        return strcasecmp(a_value, b_value) == 0;
}

/* Whether the line's shares are among those of its resource in `there`. */
static bool has_line(const char *there, const char *line)
{
        size_t name = strcspn(line, ":");
        auto_strv lines = str_split(there, '\n');
        for (char **other = lines; *other; other++) {
                const char *start = *other + strspn(*other, " \t");
                if (!line[name] || strncmp(start, line, name + 1) != 0)
                        continue;
                auto_strv have = str_split(start + name + 1, ';');
                auto_strv want = str_split(line + name + 1, ';');
                size_t found = 0;
                for (char **share = want; *share; share++)
                        for (char **one = have; *one; one++)
                                if (same_share(*one, *share)) {
                                        found++;
                                        break;
                                }
                return found == strv_length(want);
        }
        return false;
}

static int check_schemata(const char *clos, const char *wanted, struct err *err)
{
        auto_free char *path = xasprintf("%s/schemata", clos);
        auto_free char *there = NULL;
        int r = file_read(AT_FDCWD, path, SCHEMATA_SIZE_MAX, &there, NULL, err);
        if (r < 0)
                return r;
        auto_strv lines = str_split(wanted, '\n');
        for (char **line = lines; *line; line++)
                if (**line && !has_line(there, *line))
                        return err_plain(err, EINVAL,
                                         "intelRdt: '%s' is not what the class of service '%s' has",
                                         *line, clos);
        return 0;
}

/* The kernel says what is wrong with a line in a file of its own. */
static int write_schemata(const char *clos, const char *text, struct err *err)
{
        auto_free char *path = xasprintf("%s/schemata", clos);
        int r = file_put(AT_FDCWD, path, text, err);
        if (r == 0)
                return 0;
        auto_free char *status = xasprintf("%s/../info/last_cmd_status", clos);
        auto_free char *story = NULL;
        if (file_read(AT_FDCWD, status, SCHEMATA_SIZE_MAX, &story, NULL, NULL) == 0 && *story) {
                story[strcspn(story, "\n")] = '\0';
                (void)err_advise(err, "%s", story);
        }
        err_wrap(err, "intelRdt");
        return r;
}

static int make_directory(const char *path, struct err *err)
{
        if (mkdir(path, DIRECTORY_MODE) == 0)
                return 0;
        int error = errno;
        err_set(err, error, "intelRdt: make '%s'", path);
        if (error == ENOSPC)
                (void)err_advise(err, "the processor has no more classes or monitors");
        return -error;
}

/* A class that is there, with what is wanted. */
static int take_class(const struct rdt_request *request, const char *clos, const char *wanted,
                      struct err *err)
{
        if (*wanted)
                return check_schemata(clos, wanted, err);
        if (access(clos, F_OK) == 0)
                return 0;
        return err_plain(err, ENOENT,
                         "intelRdt: there is no class of service '%s', and nothing "
                         "says what it should have",
                         request->clos_id);
}

static int make_class(const char *clos, const char *wanted, struct err *err)
{
        int r = make_directory(clos, err);
        if (r < 0 || !*wanted)
                return r;
        r = write_schemata(clos, wanted, err);
        if (r < 0)
                rmdir(clos);
        return r;
}

int rdt_name(const char *mount, const struct rdt_request *request, const char *id,
             struct rdt_group *ret, struct err *err)
{
        const char *name = request->clos_id ? request->clos_id : id;
        bool root = streq(name, "/");
        if (!root && !is_class_name(name))
                return err_plain(err, EINVAL, "intelRdt: '%s' is no name of a class of service",
                                 name);
        struct rdt_group group = { .own = !request->clos_id };
        group.clos = root ? xstrdup(mount) : xasprintf("%s/%s", mount, name);
        if (request->monitor)
                group.monitor = xasprintf("%s/mon_groups/%s", group.clos, id);
        *ret = group;
        return 0;
}

int rdt_make(const struct rdt_group *group, const struct rdt_request *request, struct err *err)
{
        auto_free char *wanted = wanted_schemata(request);
        bool make = group->own || (*wanted && access(group->clos, F_OK) < 0);
        int r = make ? make_class(group->clos, wanted, err)
                     : take_class(request, group->clos, wanted, err);
        if (r == 0 && group->monitor) {
                r = make_directory(group->monitor, err);
                if (r < 0 && make)
                        rmdir(group->clos);
        }
        return r;
}

static int put_task(const char *directory, pid_t pid, struct err *err)
{
        char text[16];
        auto_free char *path = xasprintf("%s/tasks", directory);
        snprintf(text, sizeof(text), "%d", (int)pid);
        int r = file_put(AT_FDCWD, path, text, err);
        return r < 0 ? err_wrap(err, "intelRdt") : 0;
}

int rdt_join(const struct rdt_group *group, pid_t pid, struct err *err)
{
        int r = group->clos ? put_task(group->clos, pid, err) : 0;
        return r == 0 && group->monitor ? put_task(group->monitor, pid, err) : r;
}

int rdt_update(const struct rdt_group *group, const char *l3_cache, const char *memory_bandwidth,
               struct err *err)
{
        struct rdt_request request = { .l3_cache = l3_cache, .memory_bandwidth = memory_bandwidth };
        auto_free char *text = wanted_schemata(&request);
        return *text ? write_schemata(group->clos, text, err) : 0;
}

int rdt_remove(const struct rdt_group *group, struct err *err)
{
        const char *const directories[] = { group->monitor, group->own ? group->clos : NULL };
        for (size_t i = 0; i < ELEMENTS(directories); i++)
                if (directories[i] && rmdir(directories[i]) < 0 && errno != ENOENT)
                        return err_set(err, errno, "intelRdt: remove '%s'", directories[i]);
        return 0;
}

void rdt_group_finish(struct rdt_group *group)
{
        free(group->clos);
        free(group->monitor);
        *group = (struct rdt_group){ 0 };
}
