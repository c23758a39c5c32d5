/* Interest in descriptors. */
#include <sys/epoll.h>

#include "base/auto.h"
#include "monitor/monitor.h"

void source_watch(struct monitor *m, struct source *source, uint32_t events)
{
        if (source->fd < 0 || source->events == events)
                return;
        struct epoll_event event = { .events = events, .data.ptr = source };
        int op = events == 0 ? EPOLL_CTL_DEL : source->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
        if (epoll_ctl(m->epoll_fd, op, source->fd, &event) == 0)
                source->events = events;
}

void source_close(struct monitor *m, struct source *source)
{
        source_watch(m, source, 0);
        close_fd(&source->fd);
        source->events = 0;
}
