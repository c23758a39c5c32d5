#include "vmm/device/stream.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"

struct stream {
        struct loop *loop;
        const struct stream_ops *ops;
        void *arg;
        int in_fd, out_fd;
        struct loop_source *in, *out; /* `out` only while the descriptor is full */
        bool out_polls; /* false for files, which epoll does not take and which never block */

        pthread_mutex_t lock; /* of what follows */
        uint8_t bytes[STREAM_BUFFER_SIZE];
        size_t head, length;
        size_t want;
        bool posted, starved, ended;
        unsigned pins; /* functions queued on the loop */
};

static void drain(struct stream *s);

static void writable(void *arg, uint32_t events)
{
        (void)events;
        drain(arg);
}

/* Whether a write of some bytes would go through without waiting. */
static bool would_take(const struct stream *s)
{
        struct pollfd p = { s->out_fd, POLLOUT, 0 };
        return !s->out_polls || (poll(&p, 1, 0) == 1 && p.revents & (POLLOUT | POLLERR | POLLHUP));
}

/* One write of the front part; false when the descriptor is full. Lock held. */
static bool write_some(struct stream *s)
{
        size_t run = STREAM_BUFFER_SIZE - s->head;
        if (run > s->length)
                run = s->length;
        /* What POLLOUT promises of a pipe. */
        if (run > 512)
                run = 512;
        if (!would_take(s))
                return false;
        ssize_t n = write(s->out_fd, s->bytes + s->head, run);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return false;
        if (n < 0)
                n = (ssize_t)run; /* the reader is gone: as with an unplugged line */
        s->head = (s->head + (size_t)n) % STREAM_BUFFER_SIZE;
        s->length -= (size_t)n;
        return true;
}

static void drain(struct stream *s)
{
        pthread_mutex_lock(&s->lock);
        bool full = false;
        while (s->length && !full)
                full = !write_some(s);
        bool room = s->starved && s->length < STREAM_BUFFER_SIZE / 2;
        if (room)
                s->starved = false;
        s->posted = false;
        pthread_mutex_unlock(&s->lock);
        if (full && !s->out)
                loop_io(s->loop, s->out_fd, EPOLLOUT, writable, s, &s->out, NULL);
        else if (s->out)
                loop_io_set(s->out, full ? EPOLLOUT : 0);
        if (room && s->ops->drained)
                s->ops->drained(s->arg);
}

static void release(struct stream *s)
{
        if (s->in_fd >= 0)
                close_fd(&s->in_fd);
        if (s->out_fd >= 0)
                close_fd(&s->out_fd);
        pthread_mutex_destroy(&s->lock);
        free(s);
}

/* Runs on the loop: what stream_put() or stream_want() asked for. */
static void attend(void *arg)
{
        struct stream *s = arg;
        pthread_mutex_lock(&s->lock);
        bool ended = s->ended;
        bool last = --s->pins == 0;
        size_t want = s->want;
        pthread_mutex_unlock(&s->lock);
        if (ended) {
                if (last)
                        release(s);
                return;
        }
        if (s->in)
                loop_io_set(s->in, want ? EPOLLIN : 0);
        drain(s);
}

/* Lock held. */
static void post(struct stream *s)
{
        if (s->posted || s->ended)
                return;
        s->posted = true;
        s->pins++;
        loop_post(s->loop, attend, s);
}

static void readable(void *arg, uint32_t events)
{
        struct stream *s = arg;
        (void)events;
        uint8_t bytes[4096];
        pthread_mutex_lock(&s->lock);
        size_t want = s->want < sizeof(bytes) ? s->want : sizeof(bytes);
        pthread_mutex_unlock(&s->lock);
        if (!want) {
                loop_io_set(s->in, 0);
                return;
        }
        ssize_t n = read(s->in_fd, bytes, want);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                loop_source_destroy(take_ptr(s->in));
                return;
        }
        pthread_mutex_lock(&s->lock);
        s->want -= (size_t)n < s->want ? (size_t)n : s->want;
        pthread_mutex_unlock(&s->lock);
        s->ops->arrived(s->arg, bytes, (size_t)n);
}

static int own(int fd, const char *what, int *ret_fd, struct err *err)
{
        if (fd < 0)
                return 0;
        *ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return *ret_fd < 0 ? err_set(err, errno, "console %s: descriptor %d", what, fd) : 0;
}

int stream_create(struct loop *loop, int in_fd, int out_fd, const struct stream_ops *ops, void *arg,
                  struct stream **ret, struct err *err)
{
        struct stream *s = new0(struct stream);
        s->loop = loop;
        s->ops = ops;
        s->arg = arg;
        s->in_fd = s->out_fd = -1;
        pthread_mutex_init(&s->lock, NULL);
        int r = own(in_fd, "input", &s->in_fd, err);
        if (r == 0)
                r = own(out_fd, "output", &s->out_fd, err);
        if (r == 0 && s->out_fd >= 0) {
                s->out_polls = loop_io(loop, s->out_fd, 0, writable, s, &s->out, NULL) == 0;
        }
        /* A file or /dev/null as input has nothing to wait for: it is no console. */
        if (r == 0 && s->in_fd >= 0)
                loop_io(loop, s->in_fd, 0, readable, s, &s->in, NULL);
        if (r < 0) {
                stream_destroy(s);
                return r;
        }
        *ret = s;
        return 0;
}

void stream_destroy(struct stream *s)
{
        if (!s)
                return;
        loop_source_destroy(take_ptr(s->in));
        loop_source_destroy(take_ptr(s->out));
        pthread_mutex_lock(&s->lock);
        while (s->out_fd >= 0 && s->length && write_some(s))
                ;
        s->ended = true;
        bool last = s->pins == 0;
        pthread_mutex_unlock(&s->lock);
        if (last)
                release(s);
}

size_t stream_put(struct stream *s, const uint8_t *bytes, size_t size)
{
        if (s->out_fd < 0)
                return size;
        pthread_mutex_lock(&s->lock);
        size_t n = 0;
        for (; n < size && s->length < STREAM_BUFFER_SIZE; n++, s->length++)
                s->bytes[(s->head + s->length) % STREAM_BUFFER_SIZE] = bytes[n];
        if (s->length == STREAM_BUFFER_SIZE)
                s->starved = true;
        post(s);
        pthread_mutex_unlock(&s->lock);
        return n;
}

size_t stream_room(struct stream *s)
{
        pthread_mutex_lock(&s->lock);
        size_t room = s->out_fd < 0 ? STREAM_BUFFER_SIZE : STREAM_BUFFER_SIZE - s->length;
        pthread_mutex_unlock(&s->lock);
        return room;
}

void stream_want(struct stream *s, size_t size)
{
        pthread_mutex_lock(&s->lock);
        if (s->want != size) {
                s->want = size;
                post(s);
        }
        pthread_mutex_unlock(&s->lock);
}

size_t stream_waiting(struct stream *s, uint8_t ret[STREAM_BUFFER_SIZE])
{
        pthread_mutex_lock(&s->lock);
        size_t n = s->length;
        for (size_t i = 0; i < n; i++)
                ret[i] = s->bytes[(s->head + i) % STREAM_BUFFER_SIZE];
        pthread_mutex_unlock(&s->lock);
        return n;
}

void stream_restore(struct stream *s, const uint8_t *bytes, size_t size)
{
        (void)stream_put(s, bytes, size);
        pthread_mutex_lock(&s->lock);
        s->starved = true;
        post(s);
        pthread_mutex_unlock(&s->lock);
}
