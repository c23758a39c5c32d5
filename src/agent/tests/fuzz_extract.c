/* A hostile tar is put into a root that has links out of it: it ends, and what is beside the root
 * is as it was. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/extract.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "codec/tests/hostile_tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char outer[64];

static void need(bool holds)
{
        if (!holds)
                abort();
}

static void remove_outer(void)
{
        file_remove_tree(AT_FDCWD, outer, NULL);
}

static void make_outer(void)
{
        strcpy(outer, access("/dev/shm", W_OK) == 0 ? "/dev/shm/isle-fuzz-XXXXXX"
                                                    : "/tmp/isle-fuzz-XXXXXX");
        need(mkdtemp(outer));
        atexit(remove_outer);
        auto_fd dirfd = open(outer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        need(mkdirat(dirfd, "beside", 0755) == 0);
        need(file_replace(dirfd, "beside/file", "kept", 4, 0644, false, NULL) == 0);
}

/* root/place, by the link root/to, with ways out of it. */
static void make_root(int dirfd)
{
        need(mkdirat(dirfd, "root", 0755) == 0 && mkdirat(dirfd, "root/place", 0755) == 0);
        need(symlinkat("place", dirfd, "root/to") == 0);
        need(symlinkat("../../beside", dirfd, "root/place/up") == 0);
        need(symlinkat("../../beside/file", dirfd, "root/place/file") == 0);
        auto_free char *absolute = xasprintf("%s/beside", outer);
        need(symlinkat(absolute, dirfd, "root/place/absolute") == 0);
}

/* Whatever is done to a file changes this time. */
static struct timespec changed(int dirfd, const char *name)
{
        struct stat st;
        need(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0);
        return st.st_ctim;
}

static bool same(struct timespec a, struct timespec b)
{
        return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (!outer[0])
                make_outer();
        auto_hostile_tar tar = hostile_tar_of(data, size);
        auto_fd dirfd = open(outer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        make_root(dirfd);
        auto_fd root = openat(dirfd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct timespec all = changed(dirfd, "."), beside = changed(dirfd, "beside"),
                        file = changed(dirfd, "beside/file");
        struct extract to = { .root_fd = root, .base = "/to", .path = "/to", .container = "c" };
        struct tar_limits limits = { .entries = 200, .data_bytes = 1 << 20 };
        auto_tar_reader reader = NULL;
        struct err err;
        need(extract_check(&to, &err) == 0);
        if (tar_reader_create(hostile_tar_pull, &tar, &limits, &reader, &err) == 0)
                (void)extract_archive(&to, reader, &err);
        need(same(all, changed(dirfd, ".")) && same(beside, changed(dirfd, "beside")) &&
             same(file, changed(dirfd, "beside/file")));
        need(file_remove_tree(dirfd, "root", &err) == 0);
        return 0;
}
