#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/extract.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define PIECE_BYTES 65536

struct incoming {
        int fd;
        char piece[PIECE_BYTES];
};

static ssize_t read_piece(void *arg, const void **ret_block, struct err *err)
{
        struct incoming *in = arg;
        ssize_t n;
        while ((n = read(in->fd, in->piece, sizeof(in->piece))) < 0 && errno == EINTR)
                ;
        if (n < 0)
                return err_set(err, errno, "read the archive");
        *ret_block = in->piece;
        return n;
}

static void answer(int fd, int r, const struct err *err)
{
        struct agent_reply reply = { .ok = r == 0 };
        auto_buf line = { 0 };
        if (r < 0) {
                reply.error = (char *)(uintptr_t)err_text(err);
                reply.code = err->code;
        }
        agent_reply_put(&reply, &line);
        (void)io_write_full(fd, line.data, line.size);
}

static int unpack(const struct extract *to, struct incoming *in, struct err *err)
{
        auto_tar_reader reader = NULL;
        int r = extract_check(to, err);
        if (r < 0)
                return r;
        answer(in->fd, 0, NULL);
        r = tar_reader_create(read_piece, in, NULL, &reader, err);
        return r == 0 ? extract_archive(to, reader, err) : r;
}

static void receive(const struct agent_request *request, int root_fd, int fd)
{
        struct incoming in = { .fd = fd };
        struct extract to = { .root_fd = root_fd,
                              .base = request->path,
                              .path = request->path,
                              .container = request->container,
                              .no_overwrite_dir_non_dir = request->no_overwrite_dir_non_dir,
                              .has_owner = request->owner_length };
        struct err err = { 0 };
        const void *rest;
        if (to.has_owner) {
                to.uid = request->owner[0];
                to.gid = request->owner[1];
        }
        int r = unpack(&to, &in, &err);
        if (r < 0) /* before the rest is taken: it shall not come */
                answer(fd, r, &err);
        while (read_piece(&in, &rest, NULL) > 0)
                ;
        if (r == 0)
                answer(fd, 0, NULL);
}

int agent_move_files(const struct agent_request *request, pid_t pid, int fd, struct err *err)
{
        auto_free char *root = xasprintf("/proc/%d/root", (int)pid);
        auto_fd root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
                return err_set(err, errno, "open %s", root);
        pid_t child = fork();
        if (child < 0)
                return err_set(err, errno, "fork");
        if (child > 0)
                return 0;
        /* The ends of other streams are their owner's to close. */
        enum { ROOT = 3, CONNECTION };
        int from = fcntl(fd, F_DUPFD, CONNECTION + 1);
        if (from < 0 || dup2(root_fd, ROOT) < 0 || dup2(from, CONNECTION) < 0)
                _exit(1);
        (void)close_range(CONNECTION + 1, UINT32_MAX, 0);
        if (request->op == AGENT_OP_ARCHIVE)
                agent_send(request, ROOT, CONNECTION);
        else
                receive(request, ROOT, CONNECTION);
        _exit(0);
}
