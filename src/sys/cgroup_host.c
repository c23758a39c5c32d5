#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/cgroup_provider.h"

#define CGROUP_ROOT        "/sys/fs/cgroup"
#define MOUNTINFO_SIZE_MAX ((size_t)16 << 20)

const char *const cgroup_controller_names[CGROUP_CONTROLLERS] = {
        [CGROUP_CPU] = "cpu",         [CGROUP_CPUACCT] = "cpuacct", [CGROUP_CPUSET] = "cpuset",
        [CGROUP_MEMORY] = "memory",   [CGROUP_DEVICES] = "devices", [CGROUP_FREEZER] = "freezer",
        [CGROUP_PIDS] = "pids",       [CGROUP_BLKIO] = "blkio",     [CGROUP_HUGETLB] = "hugetlb",
        [CGROUP_RDMA] = "rdma",       [CGROUP_NET_CLS] = "net_cls", [CGROUP_NET_PRIO] = "net_prio",
        [CGROUP_SYSTEMD] = "systemd",
};

static uint32_t controller_bits(const char *list)
{
        uint32_t bits = 0;
        auto_strv names = str_split(list, ',');
        for (char **name = names; *name; name++)
                for (unsigned c = 0; c < CGROUP_CONTROLLERS; c++)
                        if (streq(*name, cgroup_controller_names[c]))
                                bits |= CGROUP_BIT(c);
        return bits;
}

/* Lines are "4:cpu,cpuacct:/path", "9:name=systemd:/path"; version 2 is "0::/path". */
static void parse_line(struct cgroup_host *host, char *line, const char *root)
{
        char *list = strchr(line, ':');
        char *path = list ? strchr(list + 1, ':') : NULL;
        if (!path || host->length == CGROUP_HIERARCHIES_MAX)
                return;
        *list++ = '\0';
        *path++ = '\0';
        if (str_starts(list, "name="))
                list += strlen("name=");
        uint32_t bits = controller_bits(list);
        bool v2 = *list == '\0';
        if (bits == 0 && !v2) /* a named hierarchy, or one we have no use for */
                return;
        struct cgroup_place *place = &host->places[host->length++];
        place->controllers = bits;
        place->own = xstrdup(path);
        if (!v2)
                place->mount = xasprintf("%s/%s", root, list);
        else if (host->mode == CGROUP_MODE_V2)
                place->mount = xstrdup(root);
        else
                place->mount = xasprintf("%s/unified", root);
}

void cgroup_host_parse(struct cgroup_host *host, const char *text, const char *root)
{
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++)
                parse_line(host, *line, root);
}

/* Mounts that are not where convention puts them, from /proc/self/mountinfo:
 * "36 35 0:30 ROOT MOUNT options - cgroup source rw,cpu,cpuacct". */
static int find_mount(struct cgroup_place *place, struct err *err)
{
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_SIZE_MAX, &text, NULL, err);
        if (r < 0)
                return err_wrap(err, "/proc/self/mountinfo");
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                char *dash = strstr(*line, " - ");
                char *options = dash ? strrchr(dash, ' ') : NULL;
                if (!options || !(place->controllers ? str_starts(dash, " - cgroup ")
                                                     : str_starts(dash, " - cgroup2 ")))
                        continue;
                if (place->controllers &&
                    (controller_bits(options + 1) & place->controllers) != place->controllers)
                        continue;
                auto_strv fields = str_split(*line, ' ');
                if (strv_length(fields) < 6)
                        continue;
                free(place->mount);
                place->mount = xstrdup(fields[4]);
                return 0;
        }
        return -ENOENT;
}

static bool exists(const char *path)
{
        return access(path, F_OK) == 0;
}

/* Drops what is not mounted; inside a container the own path may not exist below
 * the mount, whose root it then is. */
static void check_places(struct cgroup_host *host, uint32_t wanted)
{
        size_t kept = 0;
        for (size_t i = 0; i < host->length; i++) {
                struct cgroup_place *place = &host->places[i];
                bool v2 = place->controllers == 0;
                if ((!v2 && !(place->controllers & wanted)) ||
                    (!exists(place->mount) && find_mount(place, NULL) < 0)) {
                        free(place->mount);
                        free(place->own);
                        continue;
                }
                auto_free char *own = xasprintf("%s%s", place->mount, place->own);
                if (!streq(place->own, "/") && !exists(own)) {
                        free(place->own);
                        place->own = xstrdup("/");
                }
                host->places[kept++] = *place;
        }
        host->length = kept;
}

int cgroup_host_read(struct cgroup_host *ret, uint32_t wanted, struct err *err)
{
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, "/proc/self/cgroup", CGROUP_FILE_SIZE_MAX, &text, NULL, err);
        if (r < 0)
                return err_wrap(err, "read /proc/self/cgroup");
        struct cgroup_host host = { .mode = cgroup_mode() };
        cgroup_host_parse(&host, text, CGROUP_ROOT);
        check_places(&host, wanted);
        *ret = host;
        return 0;
}

void cgroup_host_finish(struct cgroup_host *host)
{
        for (size_t i = 0; i < host->length; i++) {
                free(host->places[i].mount);
                free(host->places[i].own);
        }
        host->length = 0;
}

void cgroup_trim(const char *path)
{
        struct cgroup_host host;
        if (cgroup_host_read(&host, CGROUP_ALL, NULL) < 0)
                return;
        for (size_t i = 0; i < host.length; i++) {
                auto_free char *directory = xasprintf("%s%s", host.places[i].mount, path);
                rmdir(directory);
        }
        cgroup_host_finish(&host);
}

enum cgroup_mode cgroup_mode(void)
{
        struct statfs fs;
        if (statfs(CGROUP_ROOT, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC)
                return CGROUP_MODE_V2;
        if (statfs(CGROUP_ROOT "/unified", &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC)
                return CGROUP_MODE_HYBRID;
        return CGROUP_MODE_V1;
}

const char *cgroup_mode_name(enum cgroup_mode mode)
{
        static const char *const names[] = {
                [CGROUP_MODE_V1] = "v1",
                [CGROUP_MODE_HYBRID] = "hybrid",
                [CGROUP_MODE_V2] = "v2",
        };
        return names[mode];
}
