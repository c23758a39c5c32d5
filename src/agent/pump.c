#include "agent/pump.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"

#define CHUNK_BYTES 65536

bool pump_done(const struct pump *pump)
{
        return pump->to < 0;
}

static void end_input(struct pump *pump)
{
        if (pump->keeps_from)
                pump->from = -1;
        close_fd(&pump->from);
}

static void end_output(struct pump *pump)
{
        end_input(pump);
        if (pump->to < 0)
                return;
        if (pump->keeps_to) {
                if (!pump->careful)
                        (void)shutdown(pump->to, SHUT_WR);
                pump->to = -1;
        }
        close_fd(&pump->to);
        buf_finish(&pump->held);
}

void pump_close(struct pump *pump)
{
        end_output(pump);
}

void pump_watch(const struct pump *pump, struct pollfd entries[PUMP_ENTRIES])
{
        entries[0] = (struct pollfd){ .fd = pump->held.size ? -1 : pump->from, .events = POLLIN };
        /* Without anything to write, its other end's going is still to be seen. */
        entries[1] = (struct pollfd){ .fd = pump->to, .events = pump->held.size ? POLLOUT : 0 };
}

/* 1 something was read, 0 nothing there now, -1 the end. */
static int take(struct pump *pump)
{
        void *room = buf_reserve(&pump->held, CHUNK_BYTES);
        ssize_t n = read(pump->from, room, CHUNK_BYTES);
        if (n > 0)
                buf_commit(&pump->held, (size_t)n);
        if (n > 0)
                return 1;
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* -1: the other end is gone. */
static int give(struct pump *pump, short revents)
{
        size_t size = pump->held.size;
        if (pump->careful && !(revents & POLLOUT))
                return 0;
        if (pump->careful && size > PIPE_BUF)
                size = PIPE_BUF;
        ssize_t n = send(pump->to, pump->held.data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK)
                n = write(pump->to, pump->held.data, size);
        if (n > 0)
                buf_consume(&pump->held, (size_t)n);
        return n >= 0 || errno == EAGAIN || errno == EINTR ? 0 : -1;
}

void pump_work(struct pump *pump, const struct pollfd entries[PUMP_ENTRIES])
{
        if (pump_done(pump))
                return;
        bool broken = entries[1].revents & (POLLERR | POLLNVAL);
        if (pump->from >= 0 && (entries[0].revents & (POLLIN | POLLHUP | POLLERR)) &&
            take(pump) < 0)
                end_input(pump);
        if (pump->held.size && give(pump, entries[1].revents) < 0)
                broken = true;
        if (broken || (pump->from < 0 && pump->held.size == 0))
                end_output(pump);
}

void pump_drain(struct pump *pump)
{
        /* A pipe holds a bounded amount, and only we take from it: this ends. */
        while (pump->from >= 0) {
                int r = take(pump);
                if (r <= 0)
                        end_input(pump);
        }
        if (pump->held.size == 0)
                end_output(pump);
}
