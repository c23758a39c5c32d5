#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/cgroup_provider.h"

#define DIRECTORY_MODE 0755

static int open_file(const char *directory, const char *file, int flags)
{
        char path[PATH_MAX];
        if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, file) >= sizeof(path)) {
                errno = ENAMETOOLONG;
                return -1;
        }
        return open(path, flags | O_CLOEXEC);
}

int cgroup_open_file(const char *directory, const char *file, int flags, int *ret_fd,
                     struct err *err)
{
        int fd = open_file(directory, file, flags);
        if (fd < 0)
                return err_set(err, errno, "open '%s/%s'", directory, file);
        *ret_fd = fd;
        return 0;
}

int cgroup_write(int fd, const char *directory, const char *file, const char *text, struct err *err)
{
        ssize_t n;
        do
                n = write(fd, text, strlen(text));
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return err_set(err, errno, "write '%s' to '%s/%s'", text, directory, file);
        return 0;
}

int cgroup_put(const char *directory, const char *file, const char *text, struct err *err)
{
        auto_fd fd = -1;
        int r = cgroup_open_file(directory, file, O_WRONLY, &fd, err);
        return r < 0 ? r : cgroup_write(fd, directory, file, text, err);
}

int cgroup_put_number(const char *directory, const char *file, int64_t value, struct err *err)
{
        char text[24];
        snprintf(text, sizeof(text), "%lld", (long long)value);
        return cgroup_put(directory, file, text, err);
}

int cgroup_get(const char *directory, const char *file, char **ret_text, struct err *err)
{
        auto_fd fd = open_file(directory, file, O_RDONLY);
        if (fd < 0)
                return err_set(err, errno, "open '%s/%s'", directory, file);
        struct err inner;
        int r = file_read_fd(fd, CGROUP_FILE_SIZE_MAX, ret_text, NULL, &inner);
        if (r < 0)
                return err_set(err, -r, "read '%s/%s'", directory, file);
        return 0;
}

uint64_t cgroup_get_number(const char *directory, const char *file, uint64_t otherwise)
{
        auto_free char *text = NULL;
        uint64_t value;
        if (cgroup_get(directory, file, &text, NULL) < 0)
                return otherwise;
        text[strcspn(text, "\n")] = '\0';
        return str_to_u64(text, &value) < 0 ? otherwise : value;
}

uint64_t cgroup_find_number(const char *text, const char *key, uint64_t otherwise)
{
        size_t length = strlen(key);
        for (const char *line = text; line; line = strchr(line, '\n')) {
                if (*line == '\n')
                        line++;
                if (strncmp(line, key, length) == 0 && line[length] == ' ')
                        return strtoull(line + length + 1, NULL, 10);
        }
        return otherwise;
}

char **cgroup_lines(const char *text)
{
        char **result = NULL;
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                char *space = strchr(*line, ' ');
                if (!space)
                        continue;
                *space = '=';
                strv_push(&result, *line);
        }
        return result;
}

int cgroup_make_directory(const char *mount, const char *directory, cgroup_fresh *fresh, void *arg,
                          struct err *err)
{
        bool made = mkdir(directory, DIRECTORY_MODE) == 0;
        if (!made && errno == ENOENT) {
                auto_free char *parent = xstrdup(directory);
                char *slash = strrchr(parent, '/');
                if (slash == parent || !slash || strlen(parent) <= strlen(mount) ||
                    (size_t)(slash - parent) < strlen(mount))
                        return err_set(err, ENOENT, "make cgroup '%s'", directory);
                *slash = '\0';
                int r = cgroup_make_directory(mount, parent, fresh, arg, err);
                if (r < 0)
                        return r;
                made = mkdir(directory, DIRECTORY_MODE) == 0;
        }
        if (!made && errno != EEXIST)
                return err_set(err, errno, "make cgroup '%s'", directory);
        return made && fresh ? fresh(directory, arg, err) : 0;
}

struct cgroup_io_stat *cgroup_io_of(struct cgroup_stats *stats, uint64_t major, uint64_t minor)
{
        for (size_t i = 0; i < stats->io_length; i++)
                if (stats->io[i].major == major && stats->io[i].minor == minor)
                        return &stats->io[i];
        stats->io = xrealloc(stats->io, stats->io_length + 1, sizeof(*stats->io));
        struct cgroup_io_stat *added = &stats->io[stats->io_length++];
        *added = (struct cgroup_io_stat){ .major = major, .minor = minor };
        return added;
}
