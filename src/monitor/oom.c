/* Kills for want of memory: of the instance's group on the host, and, of one in a virtual machine,
 * those that the guest's kernel did, which the machine's directory counts (src/guest/guest.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "monitor/monitor.h"
#include "sys/cgroup.h"

#define MACHINE_DIRECTORY "vm"
#define MACHINE_OOM_FILE  "oom"
#define NUMBER_BYTES_MAX  16
#define AGAIN_NS          (10 * NS_PER_MS) /* the first of so many looks, each 4 times as late */
#define AGAIN_LOOKS       4

static char *machine_directory(const struct monitor *m)
{
        return xasprintf("%s/%s/" MACHINE_DIRECTORY, m->options->runtime_root, m->options->id);
}

/* It is written from within the machine's jail. */
static uint32_t kills_in_machine(const struct monitor *m)
{
        auto_free char *path = NULL, *text = NULL;
        auto_free char *directory = machine_directory(m);
        uint32_t kills;
        path = xasprintf("%s/" MACHINE_OOM_FILE, directory);
        auto_fd fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 || file_read_fd(fd, NUMBER_BYTES_MAX, &text, NULL, NULL) < 0 ||
            str_to_u32(text, &kills) < 0)
                return 0;
        return kills;
}

void oom_count(struct monitor *m)
{
        uint64_t kills = 0;
        if (m->cgroup)
                (void)cgroup_oom_kills(m->cgroup, &kills, NULL);
        if (m->options->vm)
                kills += kills_in_machine(m);
        if (kills > m->oom_kills)
                m->oom_kills = kills > UINT32_MAX ? UINT32_MAX : (uint32_t)kills;
}

static void count_and_publish(struct monitor *m)
{
        uint32_t before = m->oom_kills;
        oom_count(m);
        if (m->oom_kills != before)
                control_publish(m);
}

static void look_again(struct monitor *m)
{
        struct itimerspec when = { 0 };
        if (m->oom_looks++ < AGAIN_LOOKS)
                when.it_value.tv_nsec = AGAIN_NS << 2 * (m->oom_looks - 1);
        (void)timerfd_settime(m->oom_again.fd, 0, &when, NULL);
}

static void again_ready(struct monitor *m, struct source *source, uint32_t events)
{
        uint64_t expirations;
        (void)events;
        if (read(source->fd, &expirations, sizeof(expirations)) < 0)
                return;
        count_and_publish(m);
        look_again(m);
}

/* A version 1 group tells that memory ran out before it counts whom it killed. */
static void group_ready(struct monitor *m, struct source *source, uint32_t events)
{
        /* An eventfd's counter, or memory.events, which is armed again by reading it. */
        char content[1024];
        lseek(source->fd, 0, SEEK_SET);
        bool ended = read(source->fd, content, sizeof(content)) <= 0 && errno != EAGAIN;
        count_and_publish(m);
        m->oom_looks = 0;
        look_again(m);
        if (ended || events & EPOLLHUP)
                source_close(m, source);
}

static void machine_ready(struct monitor *m, struct source *source, uint32_t events)
{
        char names[4096];
        (void)events;
        while (read(source->fd, names, sizeof(names)) > 0)
                ;
        count_and_publish(m);
}

static void watch_machine(struct monitor *m)
{
        auto_free char *directory = machine_directory(m);
        auto_fd fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (fd < 0 || inotify_add_watch(fd, directory, IN_MOVED_TO | IN_ONLYDIR) < 0)
                return;
        m->machine_oom = (struct source){ .fd = take_fd(fd), .ready = machine_ready };
        source_watch(m, &m->machine_oom, EPOLLIN);
}

void oom_watch(struct monitor *m)
{
        if (!m->options->cgroup || m->options->exec ||
            cgroup_prepare(m->options->cgroup, 0, &m->cgroup, NULL) < 0)
                return;
        m->oom.ready = group_ready;
        m->oom_again = (struct source){
                .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
                .ready = again_ready,
        };
        source_watch(m, &m->oom_again, EPOLLIN);
        if (cgroup_oom_watch(m->cgroup, &m->oom.fd, NULL) == 0)
                source_watch(m, &m->oom, EPOLLIN | EPOLLPRI);
        if (m->options->vm)
                watch_machine(m);
        count_and_publish(m); /* what was before */
}

void oom_close(struct monitor *m)
{
        source_close(m, &m->oom);
        source_close(m, &m->oom_again);
        source_close(m, &m->machine_oom);
}
