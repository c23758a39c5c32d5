/* Inside of the FUSE server: its state, a request, and one function per operation.
 *
 * Nodes are inodes that the guest knows, each with an O_PATH descriptor that
 * keeps the inode (and so its number) alive; they are found by device and inode
 * number, so that hard links are one node. A node lives while the guest holds
 * lookups of it or somebody here holds a reference. Handles are open files and
 * directories. `lock` guards both tables and all counts; it is never held across
 * a system call that may block, but for closing. Lock order: a handle's
 * `position`, then `lock`.
 */
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdalign.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "vmm/fs/server.h"
#include "vmm/fs/slots.h"
#include "vmm/vectors.h"

#define FS_ARGS_MAX (128u << 10) /* a request beside WRITE's data */
/* How long the guest may trust names and attributes: what others do to the files shows after
 * that. Hardly longer than it takes to do something and look, and a path in a loop is still
 * asked for some times in a second only. Where there are no others, a day. */
#define FS_VALID_NS           (20u * 1000 * 1000)
#define FS_VALID_EXCLUSIVE_NS (86400 * (uint64_t)NS_PER_S)

struct node {
        uint64_t number;
        dev_t dev;
        ino_t ino;
        mode_t type; /* S_IFMT bits: an inode never changes them */
        int fd;      /* O_PATH */
        uint64_t lookups;
        unsigned references;
        struct node *next; /* of the same bucket */
};

struct handle {
        uint64_t number;
        struct node *node; /* referenced */
        int fd;
        bool writable;
        unsigned references;
        pthread_mutex_t position; /* directories: seek and read are two calls */
};

struct fs_server {
        bool read_only, exclusive;
        uint64_t valid_ns;
        char **only;      /* see fs_options */
        uint64_t resolve; /* openat2: how a name is followed */
        struct fs_id_map uids, gids;
        pthread_mutex_t lock;
        struct slots nodes, handles;
        struct node **buckets;
        uint32_t buckets_mask;
        struct node *root;
};

struct request {
        struct fs_server *server;
        struct fuse_in_header header;
        const struct iovec *out, *in;
        unsigned out_length, in_length;
        size_t in_bytes; /* room for the answer */
        size_t answered; /* bytes of it behind the header */
        void *args;      /* copied from the guest, 8-aligned */
        size_t args_size;
        alignas(8) uint8_t small[4096 + 1024];
};

/* Appends to the answer: 0, or -ERANGE where the guest left no room. */
int request_answer(struct request *r, const void *bytes, size_t size);
/* The NUL-terminated text at *offset of the arguments, which moves behind it. */
int request_text(const struct request *r, size_t *offset, const char **ret);
/* As above for a name: one component, neither "." nor "..". */
int request_name(const struct request *r, size_t *offset, const char **ret);
/* Whether there is such a name in a directory, as far as the guest may know. */
bool request_shows(const struct request *r, uint64_t directory, const char *name);
/* -EPERM for a directory whose entries are not the guest's to change. */
int request_changes(const struct request *r, uint64_t directory);
/* The node or handle that the request is about, referenced; -ESTALE, -EBADF. */
int request_node(const struct request *r, uint64_t number, struct node **ret);
int request_handle(const struct request *r, uint64_t number, bool directory, struct handle **ret);

/* node.c */
int node_init(struct fs_server *server, int fd, uint32_t max);
void node_forget_all(struct fs_server *server);
void node_finish(struct fs_server *server);
struct node *node_get(struct fs_server *server, uint64_t number);
void node_put(struct fs_server *server, struct node *node);
void node_forget(struct fs_server *server, uint64_t number, uint64_t lookups);
/* Opens `name` under a directory's node as O_PATH, with its attributes. */
int node_open_child(const struct fs_server *s, const struct node *parent, const char *name,
                    int *ret_fd, struct stat *st);
/* Looks it up for the guest. */
int node_lookup(struct fs_server *server, const struct node *parent, const char *name,
                struct fuse_entry_out *ret);
/* Puts an inode (O_PATH; taken) under a number that it had, with its lookups. The node is to be
 * looked at only. -ENFILE, -EINVAL; -EEXIST: number or inode are there already. */
int node_put_back(struct fs_server *server, int fd, const struct stat *st, uint64_t number,
                  uint64_t lookups);
/* As above for a descriptor that is already open (O_PATH; taken). -ENFILE. */
int node_entry(struct fs_server *server, int fd, const struct stat *st, struct fuse_entry_out *ret);
/* Opens the inode behind any descriptor anew. */
int node_reopen(int fd, int flags);
#define PROC_FD_SIZE 32
void proc_fd(int fd, char ret[PROC_FD_SIZE]);

void attr_fill(const struct fs_server *server, const struct stat *st, struct fuse_attr *ret);
/* 0, or -EOVERFLOW where it is not mapped. */
int id_to_host(const struct fs_id_map *map, uint32_t guest, uint32_t *ret);

/* handle.c */
/* Takes the descriptor, references the node. -ENFILE. */
int handle_add(struct fs_server *server, struct node *node, int fd, bool writable,
               uint64_t *ret_number);
/* The same under a number that it had. -ENFILE, -EEXIST, -EINVAL. */
int handle_put_back(struct fs_server *server, struct node *node, int fd, bool writable,
                    uint64_t number);
struct handle *handle_get(struct fs_server *server, uint64_t number);
void handle_put(struct fs_server *server, struct handle *handle);
/* It is gone for the guest; whoever still uses it may finish. -EBADF. */
int handle_release(struct fs_server *server, uint64_t number);
void handle_release_all(struct fs_server *server);

/* op_file.c */
#define FS_OPEN_FLAGS (O_ACCMODE | O_SYNC | O_DSYNC)
static inline int open_flags(uint32_t guest)
{
        /* O_APPEND is a matter of each write (op_write), O_DIRECT of the guest's cache;
         * O_NONBLOCK so that no open waits for a lease. */
        return (int)(guest & FS_OPEN_FLAGS) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
}

/* With HANDLE_KILLPRIV_V2 the guest says when writing ends setuid and setgid; our own
 * rights would keep them. (File capabilities the host's kernel removes by itself.) */
int kill_suidgid(int fd);
/* Opens for I/O what is known to be a regular file; also empties it, as `flags` say. */
int open_truncated(int path_fd, uint32_t flags, uint32_t open_in_flags);

#define DEFINE_PUT(type)                                                                           \
        struct held_##type {                                                                       \
                struct fs_server *server;                                                          \
                struct type *it;                                                                   \
        };                                                                                         \
        static inline void put_##type(struct held_##type *held)                                    \
        {                                                                                          \
                if (held->it)                                                                      \
                        type##_put(held->server, held->it);                                        \
        }
DEFINE_PUT(node)
DEFINE_PUT(handle)
/* A reference that ends with its scope: `auto_node n = { r->server, NULL };` */
#define auto_node   __attribute__((cleanup(put_node))) struct held_node
#define auto_handle __attribute__((cleanup(put_handle))) struct held_handle

/* One per opcode: 0 or -errno. */
int op_lookup(struct request *r);
int op_forget(struct request *r);
int op_batch_forget(struct request *r);
int op_getattr(struct request *r);
int op_setattr(struct request *r);
int op_readlink(struct request *r);
int op_statfs(struct request *r);
int op_access(struct request *r);
int op_syncfs(struct request *r);

int op_symlink(struct request *r);
int op_mknod(struct request *r);
int op_mkdir(struct request *r);
int op_create(struct request *r);
int op_tmpfile(struct request *r);

int op_link(struct request *r);
int op_unlink(struct request *r);
int op_rmdir(struct request *r);
int op_rename(struct request *r);
int op_rename2(struct request *r);

int op_open(struct request *r);
int op_read(struct request *r);
int op_write(struct request *r);
int op_flush(struct request *r);
int op_release(struct request *r);
int op_fsync(struct request *r);
int op_fallocate(struct request *r);
int op_lseek(struct request *r);
int op_copy_file_range(struct request *r);

int op_opendir(struct request *r);
int op_readdir(struct request *r);
int op_readdirplus(struct request *r);
int op_releasedir(struct request *r);
int op_fsyncdir(struct request *r);

int op_setxattr(struct request *r);
int op_getxattr(struct request *r);
int op_listxattr(struct request *r);
int op_removexattr(struct request *r);
