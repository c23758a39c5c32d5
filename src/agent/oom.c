#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/cgroup.h"

#define TEXT_MAX    4096
#define EVENT_BYTES 1024

/* proc(5): of a guest, whose only hierarchy is that of version 2. */
static int find_group(pid_t pid, struct cgroup **ret, struct err *err)
{
        auto_free char *file = xasprintf("/proc/%d/cgroup", (int)pid);
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, file, TEXT_MAX, &text, NULL, err);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        if (!str_starts(text, "0::/"))
                return err_plain(err, EPROTO, "%s: '%s' is no group of version 2", file, text);
        return cgroup_prepare(text + strlen("0::"), 0, ret, err);
}

int oom_watch(struct oom *oom, pid_t pid, struct err *err)
{
        int r = find_group(pid, &oom->group, err);
        return r == 0 ? cgroup_oom_watch(oom->group, &oom->fd, err) : r;
}

bool oom_look(struct oom *oom)
{
        char events[EVENT_BYTES];
        uint64_t kills;
        while (oom->fd >= 0 && read(oom->fd, events, sizeof(events)) > 0)
                ;
        if (!oom->group || cgroup_oom_kills(oom->group, &kills, NULL) < 0 || kills <= oom->kills)
                return false;
        oom->kills = kills > UINT32_MAX ? UINT32_MAX : (uint32_t)kills;
        return true;
}

void oom_finish(struct oom *oom)
{
        close_fd(&oom->fd);
        cgroup_close(oom->group);
        oom->group = NULL;
}
