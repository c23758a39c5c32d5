#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/rand.h"
#include "base/str.h"

#define READ_CHUNK_BYTES 4096

ssize_t io_read_full(int fd, void *data, size_t size)
{
        size_t done = 0;
        while (done < size) {
                ssize_t n = read(fd, (char *)data + done, size - done);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        return (ssize_t)done;
}

int io_write_full(int fd, const void *data, size_t size)
{
        size_t done = 0;
        while (done < size) {
                ssize_t n = write(fd, (const char *)data + done, size - done);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                done += (size_t)n;
        }
        return 0;
}

int io_stream(int *ret_reader, int *ret_writer, struct err *err)
{
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_set(err, errno, "make a stream");
        auto_fd reader = pair[0], writer = pair[1];
        /* A socket that is closed with unread bytes is reset. */
        int r = io_write_full(reader, "", 1);
        if (r < 0)
                return err_set(err, -r, "make a stream");
        *ret_reader = take_fd(reader);
        *ret_writer = take_fd(writer);
        return 0;
}

void io_stream_end(int writer)
{
        char unread;
        (void)io_read_full(writer, &unread, 1);
}

int io_pwrite_full(int fd, const void *data, size_t size, uint64_t offset)
{
        size_t done = 0;
        while (done < size) {
                ssize_t n = pwrite(fd, (const char *)data + done, size - done,
                                   (off_t)(offset + done));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                done += (size_t)n;
        }
        return 0;
}

int file_read_fd(int fd, size_t limit_bytes, char **ret_data, size_t *ret_size, struct err *err)
{
        struct stat st;
        size_t chunk = READ_CHUNK_BYTES;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
            (size_t)st.st_size <= limit_bytes)
                chunk = (size_t)st.st_size + 1;

        auto_buf buf = { .limit_bytes = 0 };
        for (;;) {
                void *room = buf_reserve(&buf, chunk);
                ssize_t n = read(fd, room, chunk);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_set(err, errno, "read");
                buf_commit(&buf, (size_t)n);
                if (buf.size > limit_bytes)
                        return err_plain(err, EFBIG, "larger than the limit of %zu bytes",
                                         limit_bytes);
                if (n == 0)
                        break;
                chunk = READ_CHUNK_BYTES;
        }
        if (ret_size)
                *ret_size = buf.size;
        *ret_data = buf_take(&buf);
        return 0;
}

int file_read(int dirfd, const char *name, size_t limit_bytes, char **ret_data, size_t *ret_size,
              struct err *err)
{
        auto_fd fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", name);
        int r = file_read_fd(fd, limit_bytes, ret_data, ret_size, err);
        if (r < 0)
                err_wrap(err, "'%s'", name);
        return r;
}

int file_put(int dirfd, const char *name, const char *text, struct err *err)
{
        auto_fd fd = openat(dirfd, name, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", name);
        if (write(fd, text, strlen(text)) < 0)
                return err_set(err, errno, "write '%s' to '%s'", text, name);
        return 0;
}

/* The directory part of `name`, opened, for the fsync after a rename. */
static int open_parent(int dirfd, const char *name)
{
        const char *slash = strrchr(name, '/');
        auto_free char *parent = slash ? xstrndup(name, (size_t)(slash - name)) : xstrdup(".");
        return openat(dirfd, slash == name ? "/" : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int file_replace(int dirfd, const char *name, const void *data, size_t size, mode_t mode,
                 bool durable, struct err *err)
{
        auto_free char *temp = xasprintf("%s.tmp-%016llx", name, (unsigned long long)rand_u64());
        auto_fd fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                            mode);
        if (fd < 0)
                return err_set(err, errno, "create '%s'", temp);
        int r = io_write_full(fd, data, size);
        if (r == 0 && durable && fsync(fd) < 0)
                r = -errno;
        if (r == 0 && renameat(dirfd, temp, dirfd, name) < 0)
                r = -errno;
        if (r < 0) {
                unlinkat(dirfd, temp, 0);
                return err_set(err, -r, "write '%s'", name);
        }
        if (durable) {
                auto_fd parent = open_parent(dirfd, name);
                if (parent < 0 || fsync(parent) < 0)
                        return err_set(err, errno, "sync the directory of '%s'", name);
        }
        return 0;
}

int file_make_dirs(int dirfd, const char *path, mode_t mode, struct err *err)
{
        if (mkdirat(dirfd, path, mode) == 0 || errno == EEXIST)
                return 0;
        if (errno != ENOENT)
                return err_set(err, errno, "make directory '%s'", path);

        auto_free char *partial = xstrdup(path);
        for (char *slash = strchr(partial + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                if (mkdirat(dirfd, partial, mode) < 0 && errno != EEXIST)
                        return err_set(err, errno, "make directory '%s'", partial);
                *slash = '/';
        }
        if (mkdirat(dirfd, path, mode) < 0 && errno != EEXIST)
                return err_set(err, errno, "make directory '%s'", path);
        return 0;
}

/* Removal of one tree. A container can nest directories without end: below
 * REMOVE_DEPTH_MAX they are moved up into the top directory, which is then listed
 * again, so that descriptors and stack stay bounded. */
#define REMOVE_DEPTH_MAX 64

struct removal {
        dev_t device;
        int top_fd; /* -1: not there yet */
        unsigned depth;
        bool moved;
};

static int remove_entries(struct removal *removal, int fd, struct err *err);

static int move_up(struct removal *removal, int dirfd, const char *name, struct err *err)
{
        char moved[32] = ".moved-";
        rand_hex(moved + 7, 16);
        if (renameat(dirfd, name, removal->top_fd, moved) < 0)
                return err_set(err, errno, "move '%s' up to remove it", name);
        removal->moved = true;
        return 0;
}

static int remove_directory(struct removal *removal, int dirfd, const char *name, struct err *err)
{
        auto_fd fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "remove '%s'", name);
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "stat '%s'", name);
        bool top = removal->top_fd < 0;
        if (top) {
                removal->device = st.st_dev;
                removal->top_fd = fd;
        } else if (st.st_dev != removal->device) {
                return err_plain(err, EBUSY, "remove '%s': something is mounted there", name);
        }
        int r;
        removal->depth++;
        do {
                removal->moved = top ? false : removal->moved;
                r = remove_entries(removal, fd, err);
        } while (r == 0 && top && removal->moved);
        removal->depth--;
        if (r < 0)
                return r;
        if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
                return err_set(err, errno, "remove directory '%s'", name);
        return 0;
}

static int remove_entry(struct removal *removal, int dirfd, const char *name, struct err *err)
{
        if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return err_set(err, errno, "remove '%s'", name);
        if (removal->depth >= REMOVE_DEPTH_MAX && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
                return move_up(removal, dirfd, name, err);
        return removal->depth >= REMOVE_DEPTH_MAX ? 0 : remove_directory(removal, dirfd, name, err);
}

static int remove_entries(struct removal *removal, int fd, struct err *err)
{
        int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir dir = copy >= 0 ? fdopendir(copy) : NULL;
        if (!dir) {
                int code = errno;
                if (copy >= 0)
                        close(copy);
                return err_set(err, code, "list a directory");
        }
        for (;;) {
                errno = 0;
                struct dirent *entry = readdir(dir);
                if (!entry)
                        return errno ? err_set(err, errno, "list a directory") : 0;
                if (streq(entry->d_name, ".") || streq(entry->d_name, ".."))
                        continue;
                int r = remove_entry(removal, fd, entry->d_name, err);
                if (r < 0)
                        return r;
        }
}

int file_remove_tree(int dirfd, const char *name, struct err *err)
{
        struct removal removal = { .top_fd = -1 };
        return remove_entry(&removal, dirfd, name, err);
}
