#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "guest/guest.h"
#include "guest/relay.h"
#include "guest/session.h"

struct incoming {
        int fd;
        struct buf *in; /* what came with the answer */
};

/* A guest that sends nothing is not waited for, and for a reader that has gone nobody is. */
static ssize_t read_some(void *arg, void *room, size_t size, struct err *err)
{
        struct incoming *incoming = arg;
        struct buf *in = incoming->in;
        if (in->size) {
                size_t n = in->size < size ? in->size : size;
                memcpy(room, in->data, n);
                buf_consume(in, n);
                return (ssize_t)n;
        }
        for (;;) {
                struct pollfd entries[] = { { incoming->fd, POLLIN, 0 }, { STDOUT_FILENO, 0, 0 } };
                int n = poll(entries, ELEMENTS(entries), SESSION_TIMEOUT_MS);
                if (n == 0)
                        return err_plain(err, ETIMEDOUT, "the agent in the guest does not answer");
                if (n > 0 && entries[1].revents)
                        return err_set(err, EPIPE, "write the archive");
                ssize_t got = n < 0 ? -1 : read(incoming->fd, room, size);
                if (got >= 0 || errno != EINTR)
                        return got < 0 ? err_set(err, errno, "read the guest's archive") : got;
        }
}

static int write_out(void *arg, const void *data, size_t size, struct err *err)
{
        (void)arg;
        int r = io_write_full(STDOUT_FILENO, data, size);
        return r < 0 ? err_set(err, -r, "write the archive") : 0;
}

/* Nothing but this of what the guest said. */
static int tell_file(const struct agent_reply *reply, struct err *err)
{
        auto_buf line = { 0 };
        const struct agent_reply file = { .mode = reply->mode,
                                          .size_bytes = reply->size_bytes,
                                          .mtime_ns = reply->mtime_ns,
                                          .link = reply->link };
        agent_reply_put(&file, &line);
        return write_out(NULL, line.data, line.size, err);
}

int guest_archive(const struct archive_options *options, struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_ARCHIVE,
                                         .path = (char *)(uintptr_t)options->place.path,
                                         .container = (char *)(uintptr_t)options->place.name,
                                         .look = options->look };
        auto_agent_reply reply = { 0 };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        int r = guest_reach(options->place.root, options->place.id, "give files", &fd, err);
        if (r == 0)
                r = agent_ask(fd, &in, &request, &reply, err);
        if (r == 0)
                r = tell_file(&reply, err);
        if (r < 0 || options->look)
                return r;
        auto_free char *as = path_archive_name(options->place.path);
        struct incoming incoming = { fd, &in };
        return relay_archive(read_some, &incoming, as, write_out, NULL, err);
}
