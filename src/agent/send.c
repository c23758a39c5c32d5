#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/collect.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "base/utf8.h"
#include "codec/stdcopy.h"

static int send_frame(int fd, enum stdcopy_stream stream, const void *data, size_t size)
{
        unsigned char header[STDCOPY_HEADER_SIZE];
        stdcopy_header(header, stream, (uint32_t)size);
        int r = io_write_full(fd, header, sizeof(header));
        return r == 0 ? io_write_full(fd, data, size) : r;
}

static int write_piece(void *arg, const void *data, size_t size, struct err *err)
{
        const int *fd = arg;
        int r = size ? send_frame(*fd, STDCOPY_STDOUT, data, size) : 0;
        return r < 0 ? err_set(err, -r, "write the archive") : 0;
}

static void put_outcome(struct buf *line, int r, const struct err *err)
{
        struct agent_reply reply = { .ok = r == 0 };
        if (r < 0) {
                reply.error = (char *)(uintptr_t)err_text(err);
                reply.code = err->code;
        }
        agent_reply_put(&reply, line);
}

static void put_file(struct buf *line, const struct collected *file)
{
        const struct stat *st = &file->stat;
        auto_free char *target = utf8_clean(file->link_target, strlen(file->link_target));
        agent_reply_put(&(struct agent_reply){ .ok = true,
                                               .mode = st->st_mode,
                                               .size_bytes = st->st_size,
                                               .mtime_ns = st->st_mtim.tv_sec * NS_PER_S +
                                                           st->st_mtim.tv_nsec,
                                               .link = target },
                        line);
}

static void send_archive(int fd, const struct collected *file)
{
        static const struct tree_ids as_they_are;
        struct err err = { 0 };
        auto_buf last = { 0 };
        int r = collect_archive(file, &as_they_are, write_piece, &fd, &err);
        put_outcome(&last, r, &err);
        (void)send_frame(fd, STDCOPY_SYSTEM, last.data, last.size);
}

void agent_send(const struct agent_request *request, int root_fd, int fd)
{
        struct err err = { 0 };
        auto_buf line = { 0 };
        auto_free char *base = NULL;
        auto_free char *absolute = xasprintf("/%s", request->path);
        auto_collected file = { .dir_fd = -1 };
        int r = path_clean(absolute, &base, &err);
        struct collect from = { root_fd, base, request->path, request->container };
        if (r == 0)
                r = collect_find(&from, &file, &err);
        if (r < 0)
                put_outcome(&line, r, &err);
        else
                put_file(&line, &file);
        if (io_write_full(fd, line.data, line.size) == 0 && r == 0 && !request->look)
                send_archive(fd, &file);
}
