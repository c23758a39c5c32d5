/* A temporary directory with a server and a guest at it, for one test. Included by a test's only
 * file, behind cmocka.h. */
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "vmm/fs/tests/guest.h"

#define ROOT FUSE_ROOT_ID

static struct guest guest, *g = &guest;
static char top[64];
static int root_fd;

static inline void put(const char *name, const char *text)
{
        auto_fd fd = openat(root_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
}

static inline void holds(const char *name, const char *text)
{
        auto_free char *is = NULL;
        assert_int_equal(file_read(root_fd, name, 1 << 20, &is, NULL, NULL), 0);
        assert_string_equal(is, text);
}

static inline struct stat stat_of(const char *name)
{
        struct stat st;
        assert_int_equal(fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
        return st;
}

static inline void serve(struct fs_options o)
{
        struct err err = { 0 };
        fs_server_destroy(guest.server);
        o.root = top;
        guest = (struct guest){ .uid = geteuid(), .gid = getegid() };
        if (fs_server_create(&o, &guest.server, &err) < 0)
                fail_msg("%s", err.text);
        assert_int_equal(guest_init(g), 0);
}

static inline int setup(void **state)
{
        (void)state;
        strcpy(top, "/tmp/isle-fs-XXXXXX");
        assert_non_null(mkdtemp(top));
        root_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        serve((struct fs_options){ 0 });
        return 0;
}

static inline int teardown(void **state)
{
        (void)state;
        fs_server_destroy(guest.server);
        guest.server = NULL;
        close(root_fd);
        return file_remove_tree(AT_FDCWD, top, NULL);
}

static inline uint64_t node_of(uint64_t parent, const char *name)
{
        assert_int_equal(guest_lookup(g, parent, name), 0);
        return guest_entry(g)->nodeid;
}

static inline uint64_t opened(uint64_t node, uint32_t flags)
{
        uint64_t handle = 0;
        assert_int_equal(guest_open(g, FUSE_OPEN, node, flags, &handle), 0);
        return handle;
}

/* CREATE: the new node in the last answer, the handle here. */
static inline uint64_t create(uint64_t parent, const char *name, uint32_t flags, uint32_t mode)
{
        const struct fuse_create_in in = { .flags = flags, .mode = S_IFREG | mode };
        assert_int_equal(guest_name(g, FUSE_CREATE, parent, &in, sizeof(in), name), 0);
        assert_int_equal(g->size, sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out));
        return ((const struct fuse_open_out *)(guest_entry(g) + 1))->fh;
}
