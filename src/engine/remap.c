#include "engine/remap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/bundle.h"
#include "engine/spec.h"
#include "sys/caps.h"
#include "sys/namespace.h"

#define DEFAULT_USER    "isle"
#define RANGES_SIZE_MAX ((size_t)4 << 20)
#define RANGE_SMALLEST  65536 /* an image may use any 16-bit id */

/* The first line "name:first:count" of the name's with a range that is large enough. */
static int find_range(const char *path, const char *name, uint32_t *ret_first, uint32_t *ret_count,
                      struct err *err)
{
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, path, RANGES_SIZE_MAX, &text, NULL, err);
        if (r < 0 && r != -ENOENT)
                return r;
        auto_strv lines = str_split(text ? text : "", '\n');
        for (char **line = lines; *line; line++) {
                auto_strv fields = str_split(*line, ':');
                uint32_t first, count;
                if (strv_length(fields) == 3 && streq(fields[0], name) &&
                    str_to_u32(fields[1], &first) == 0 && str_to_u32(fields[2], &count) == 0 &&
                    first > 0 && count >= RANGE_SMALLEST && first <= UINT32_MAX - count) {
                        *ret_first = first;
                        *ret_count = count;
                        return 0;
                }
        }
        return err_plain(err, ENOENT,
                         "%s has no range of at least %d ids for '%s'; add one, such as "
                         "\"%s:100000:65536\"",
                         path, RANGE_SMALLEST, name, name);
}

int remap_load(const char *setting, struct id_remap *ret, struct err *err)
{
        *ret = (struct id_remap){ 0 };
        if (str_empty(setting))
                return 0;
        auto_free char *user = xstrdup(streq(setting, "default") ? DEFAULT_USER : setting);
        char *group = strchr(user, ':');
        if (group)
                *group++ = '\0';
        struct id_remap remap = { .on = true };
        int r = find_range("/etc/subuid", user, &remap.uid, &remap.uids, err);
        if (r == 0)
                r = find_range("/etc/subgid", group ? group : user, &remap.gid, &remap.gids, err);
        if (r < 0)
                return err_wrap(err, "--userns-remap '%s'", setting), r;
        *ret = remap;
        return 0;
}

struct id_remap remap_of(const struct id_remap *remap, const struct host_config *host)
{
        static const struct id_remap off;
        return streq(host->userns_mode, "host") ? off : *remap;
}

int remap_check(const struct id_remap *remap, const struct host_config *host, struct err *err)
{
        const struct {
                const char *mode, *what;
        } shared[] = { { host->network_mode, "network" },
                       { host->pid_mode, "PID" },
                       { host->ipc_mode, "IPC" },
                       { host->uts_mode, "UTS" } };
        if (!remap_of(remap, host).on)
                return 0;
        if (host->privileged)
                return err_plain(err, EINVAL,
                                 "privileged mode is incompatible with user namespaces; use "
                                 "--userns host with it");
        for (size_t i = 0; i < ELEMENTS(shared); i++)
                if (streq(shared[i].mode, "host") || str_starts(shared[i].mode ?: "", "container:"))
                        return err_plain(err, EINVAL,
                                         "cannot share the %s namespace ('%s') when user "
                                         "namespaces are enabled; use --userns host with it",
                                         shared[i].what, shared[i].mode);
        return 0;
}

void remap_apply(const struct id_remap *remap, struct oci_linux *l)
{
        const struct oci_id_mapping uids = { 0, remap->uid, remap->uids };
        const struct oci_id_mapping gids = { 0, remap->gid, remap->gids };
        const struct oci_namespace namespace = { .kind = OCI_NAMESPACE_USER };
        ARRAY_PUSH(l->namespaces, l->namespaces_length, namespace);
        ARRAY_PUSH(l->uid_mappings, l->uid_mappings_length, uids);
        ARRAY_PUSH(l->gid_mappings, l->gid_mappings_length, gids);
}

int remap_namespace(const struct id_remap *remap, int *ret_fd, struct err *err)
{
        const struct namespace_map uids = { 0, remap->uid, remap->uids };
        const struct namespace_map gids = { 0, remap->gid, remap->gids };
        return namespace_user_create(&uids, 1, &gids, 1, ret_fd, err);
}

int remap_enter(const struct id_remap *remap, struct err *err)
{
        if (!remap->on)
                return 0;
        setfsgid(remap->gid);
        setfsuid(remap->uid);
        /* The change took the capabilities over files from this thread. */
        return caps_raise_permitted(err);
}

void remap_leave(const struct id_remap *remap)
{
        if (!remap->on)
                return;
        setfsuid(0);
        setfsgid(0);
}
