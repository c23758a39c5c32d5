#include "agent/collect.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/path.h"
#include "base/str.h"
#include "sys/resolve.h"

void collected_finish(struct collected *file)
{
        close_fd(&file->dir_fd);
        free(file->name);
        free(file->as);
        free(file->link_target);
        *file = (struct collected){ .dir_fd = -1 };
}

static int not_found(const struct collect *from, struct err *err)
{
        return err_plain(err, ENOENT, "Could not find the file %s in container %s", from->path,
                         from->container);
}

/* The directory and the name in it. */
static int locate(const struct collect *from, struct collected *file, struct err *err)
{
        const char *path = from->path, *last = strrchr(from->base, '/') + 1;
        bool itself = !*last || str_ends(path, "/") || str_ends(path, "/.") || streq(path, ".");
        auto_free char *parent = itself ? xstrdup(from->base)
                                        : xstrndup(from->base, (size_t)(last - from->base));
        int r = resolve_open(from->root_fd, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0,
                             &file->dir_fd, err);
        if (r == -ENOTDIR && itself)
                return err_plain(err, EINVAL, "%s is not a directory", path);
        if (r < 0)
                return r == -ENOENT || r == -ENOTDIR ? not_found(from, err) : r;
        file->name = xstrdup(itself ? "." : last);
        file->as = path_archive_name(path);
        return 0;
}

/* Where a link leads, as a path in the root. */
static char *link_target(const struct collected *file, const char *path)
{
        char target[4097];
        ssize_t n = readlinkat(file->dir_fd, file->name, target, sizeof(target) - 1);
        if (n < 0)
                return xstrdup("");
        target[n] = '\0';
        auto_free char *joined = target[0] == '/' ? xstrdup(target)
                                                  : xasprintf("/%s/../%s", path, target);
        char *clean;
        return path_clean(joined, &clean, NULL) < 0 ? xstrdup("") : clean;
}

static int look(const struct collect *from, struct collected *file, struct err *err)
{
        int r = locate(from, file, err);
        if (r < 0)
                return r;
        if (fstatat(file->dir_fd, file->name, &file->stat, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? not_found(from, err)
                                       : err_set(err, errno, "stat %s", from->path);
        file->link_target = S_ISLNK(file->stat.st_mode) ? link_target(file, from->path)
                                                        : xstrdup("");
        return 0;
}

int collect_find(const struct collect *from, struct collected *ret, struct err *err)
{
        struct collected file = { .dir_fd = -1 };
        int r = look(from, &file, err);
        if (r < 0)
                collected_finish(&file);
        else
                *ret = file;
        return r;
}

int collect_archive(const struct collected *file, const struct tree_ids *ids, tar_write *write,
                    void *arg, struct err *err)
{
        auto_tar_writer writer = NULL;
        int r = tar_writer_create(write, arg, &writer, err);
        if (r == 0)
                r = tree_tar(writer, file->dir_fd, file->name, file->as, ids, err);
        return r == 0 ? tar_writer_finish(writer, err) : r;
}
