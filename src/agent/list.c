#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"

#define STATUS_SIZE_MAX 8192
#define KIB             1024

/* What a list needs to translate numbers of ours to the container's. */
struct found {
        uint32_t pid, parent; /* ours */
        struct agent_process process;
};

struct listing {
        ino_t own_namespace;
        struct found *found;
        size_t length;
};

static ino_t pid_namespace(int dirfd)
{
        struct stat st;
        return fstatat(dirfd, "ns/pid", &st, 0) == 0 ? st.st_ino : 0;
}

static char *printable(const char *text, size_t size)
{
        char *copy = xstrndup(text, size);
        for (char *c = copy; *c; c++)
                if (*c < 0x20 || *c > 0x7e)
                        *c = '?';
        return copy;
}

/* "Name:\tvalue" of /proc/PID/status. */
static const char *status_value(const char *status, const char *name)
{
        auto_free char *key = xasprintf("\n%s:\t", name);
        const char *found = strstr(status, key);
        return found ? found + strlen(key) : NULL;
}

static int read_status(int dirfd, struct found *to)
{
        auto_free char *text = NULL;
        if (file_read(dirfd, "status", STATUS_SIZE_MAX, &text, NULL, NULL) < 0)
                return -ESRCH;
        const char *uid = status_value(text, "Uid"), *pids = status_value(text, "NSpid");
        /* Ours first, then the container's, then those of namespaces within. */
        if (!uid || !pids || sscanf(uid, "%*u %u", &to->process.uid) != 1 ||
            sscanf(pids, "%*u %u", &to->process.pid) != 1)
                return -ESRCH;
        return 0;
}

static int read_stat(int dirfd, struct found *to)
{
        struct agent_process *p = &to->process;
        auto_free char *text = NULL;
        uint64_t user, system, started, virtual;
        int64_t resident;
        char state;
        if (file_read(dirfd, "stat", STATUS_SIZE_MAX, &text, NULL, NULL) < 0)
                return -ESRCH;
        char *open = strchr(text, '('), *end = strrchr(text, ')');
        if (!open || !end ||
            sscanf(end + 1,
                   " %c %u %*d %*d %u %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                   " %*d %*d %*d %*d %u %*d %" SCNu64 " %" SCNu64 " %" SCNd64,
                   &state, &to->parent, &p->terminal, &user, &system, &p->threads, &started,
                   &virtual, &resident) != 9)
                return -ESRCH;
        const uint64_t tick_ms = 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
        p->name = printable(open + 1, (size_t)(end - open - 1));
        p->state = printable(&state, 1);
        p->cpu_ms = (user + system) * tick_ms;
        p->started_ms = started * tick_ms;
        p->virtual_kib = virtual / KIB;
        p->resident_kib = (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE) / KIB;
        return 0;
}

static void read_command(int dirfd, struct found *to)
{
        char bytes[AGENT_COMMAND_MAX];
        auto_fd fd = openat(dirfd, "cmdline", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, bytes, sizeof(bytes));
        while (n > 0 && bytes[n - 1] == '\0')
                n--;
        for (ssize_t i = 0; i < n; i++)
                if (bytes[i] == '\0')
                        bytes[i] = ' ';
        to->process.command = printable(bytes, n > 0 ? (size_t)n : 0);
}

static void finish(struct agent_process *process)
{
        free(process->state);
        free(process->name);
        free(process->command);
}

/* It may end at any moment: then it is not there. */
static void take(struct listing *listing, int proc_fd, const char *name, uint32_t pid)
{
        auto_fd dirfd = openat(proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct found found = { .pid = pid };
        ino_t namespace = dirfd < 0 ? 0 : pid_namespace(dirfd);
        if (!namespace || namespace == listing->own_namespace)
                return;
        if (read_status(dirfd, &found) < 0 || read_stat(dirfd, &found) < 0) {
                finish(&found.process);
                return;
        }
        read_command(dirfd, &found);
        listing->found = xrealloc(listing->found, listing->length + 1, sizeof(found));
        listing->found[listing->length++] = found;
}

static uint32_t parent_of(const struct listing *listing, uint32_t pid)
{
        for (size_t i = 0; i < listing->length; i++)
                if (listing->found[i].pid == pid)
                        return listing->found[i].process.pid;
        return 0;
}

static int collect(struct listing *listing, struct err *err)
{
        auto_dir dir = opendir("/proc");
        if (!dir)
                return err_set(err, errno, "read /proc");
        for (struct dirent *entry; (entry = readdir(dir));) {
                uint32_t pid;
                if (str_to_u32(entry->d_name, &pid) < 0)
                        continue;
                if (listing->length == AGENT_PROCESSES_MAX)
                        return err_plain(err, E2BIG, "there are more than %d processes",
                                         AGENT_PROCESSES_MAX);
                take(listing, dirfd(dir), entry->d_name, pid);
        }
        return 0;
}

int agent_list(struct agent_reply *ret, struct err *err)
{
        struct listing listing = { 0 };
        struct agent_reply reply = { .ok = true };
        struct sysinfo info;
        struct timespec now;
        auto_fd self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
        listing.own_namespace = pid_namespace(self);
        int r = collect(&listing, err);
        reply.processes = xcalloc(listing.length + 1, sizeof(*reply.processes));
        reply.processes_length = listing.length;
        for (size_t i = 0; i < listing.length; i++) {
                reply.processes[i] = listing.found[i].process;
                reply.processes[i].parent = parent_of(&listing, listing.found[i].parent);
        }
        free(listing.found);
        clock_gettime(CLOCK_BOOTTIME, &now);
        reply.uptime_ms = (uint64_t)(now.tv_sec * 1000 + now.tv_nsec / NS_PER_MS);
        if (sysinfo(&info) == 0)
                reply.memory_kib = (uint64_t)info.totalram * info.mem_unit / KIB;
        if (r < 0)
                agent_reply_finish(&reply);
        else
                *ret = reply;
        return r;
}
