#include "guest/cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"

#define UNUSED_S (7 * 24 * 3600)

int cache_use(int dirfd, const char *name)
{
        const struct timespec used[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };
        struct stat st;
        auto_fd fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_SH) < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0)
                return -1;
        (void)futimens(fd, used);
        (void)flock(fd, LOCK_UN);
        return take_fd(fd);
}

static void remove_if_unused(int dirfd, const char *name, time_t limit)
{
        struct stat st;
        auto_fd fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 &&
            st.st_nlink == 1 && st.st_atime < limit)
                (void)unlinkat(dirfd, name, 0);
}

void cache_remove_unused(const char *directory, const char *suffix)
{
        auto_dir dir = opendir(directory);
        time_t limit = time(NULL) - UNUSED_S;
        for (struct dirent *entry; dir && (entry = readdir(dir));)
                if (str_ends(entry->d_name, suffix))
                        remove_if_unused(dirfd(dir), entry->d_name, limit);
}
