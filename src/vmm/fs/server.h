/* A FUSE server for one directory of the host: what virtio-fs carries.
 *
 * The server knows nothing of virtio. A request is what the guest wrote (a
 * fuse_in_header and its arguments), the answer goes where the guest said.
 *
 * The guest is hostile. It may change the memory of the vectors at any time:
 * headers, arguments and names are copied out before they are looked at, file
 * data goes straight between the vectors and the kernel. It may ask for
 * anything: a path is only ever one name below a directory that the server
 * already holds, opened without following a symbolic link or entering a mount,
 * and no inode but a regular file or a directory is ever opened for I/O. What
 * the guest can make the server hold is bounded: inodes and open files, each by
 * a share of RLIMIT_NOFILE, whose soft limit is raised to the hard one; beyond
 * that the answer is ENFILE.
 *
 * Permissions are the guest kernel's business (virtio-fs always mounts with
 * default_permissions); the server acts with its own rights. With identity
 * mapping a guest's root can leave setuid-root programs in the directory: map
 * ids, or keep host users away from it. Device nodes are shown but never made,
 * except the 0:0 that overlayfs takes for "deleted". Extended attributes are
 * `user.` and, with identity mapping, `security.capability`. Mounts below the
 * directory are not entered (EXDEV). A directory that the host moves out of the
 * export stays reachable for a guest that had looked it up. With `only` the directory
 * itself belongs to the host: the guest neither sees what else lies there nor can it put
 * something, say a link, in the place of what it sees.
 *
 * What the guest creates is made with no rights for others, then given to the
 * caller by fchown, then given its mode: so no setuid program ever belongs to
 * the wrong user, modes do not depend on our umask, a setgid directory's group is
 * inherited as by any local creation, and no thread ever runs with
 * changed credentials that a failure could leave behind.
 *
 * Source: linux/fuse.h, protocol 7.31 to 7.38; VIRTIO 1.2, section 5.11.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define FS_SEGMENTS  1024 /* vectors of a request, each way */
#define FS_WRITE_MAX (1u << 20)

struct fs_server;
struct state_section;
struct state_writer;

/* The guest's ids guest..guest+count-1 are the host's host..host+count-1. Others are
 * shown as 65534 and cannot create (EOVERFLOW). count 0: every id is itself. */
struct fs_id_map {
        uint32_t guest, host, count;
};

struct fs_options {
        const char *root; /* the directory that the guest sees; only read by create */
        int root_fd;      /* the same where `root` is NULL; taken over (also on failure) */
        bool read_only;   /* whatever would change something is EROFS */
        /* Nobody else changes what is there while the guest runs: it need not ask again. */
        bool exclusive;
        /* What is mounted below is seen, too. To the guest it is all one file system, in
         * which inode numbers may then appear twice. */
        bool submounts;
        /* The only names in `root` that there are for the guest, which can make, move and take
         * away none there. NULL: all. Copied. */
        char *const *only;
        struct fs_id_map uids, gids;
        unsigned servers;    /* that share the process's descriptors; 0 is one */
        uint32_t inodes_max; /* 0: what the share of descriptors allows */
};

int fs_server_create(const struct fs_options *options, struct fs_server **ret, struct err *err);
/* No request may be under way. Accepts NULL. */
void fs_server_destroy(struct fs_server *server);

/* One request. Returns the bytes of the answer at the front of `in`; 0 where it
 * has none (FORGET) or no room for a header. A malformed request is answered by an
 * error. THREAD-SAFE, and blocks as file I/O does. */
size_t fs_server_handle(struct fs_server *server, const struct iovec *out, unsigned out_length,
                        const struct iovec *in, unsigned in_length);

/* What the guest holds, for a snapshot: inodes by their names, and how they are open. What has no
 * name any more is forgotten, which the guest sees as ESTALE; where it is open, saving is refused.
 * In a new server of the same directory, or of a copy, they are looked up again: each must
 * be there and of its type, and with `exclusive`, where a guest trusts what it knows, of the
 * same size and time of change. No request may be under way. On a thread of JAIL_FILES. */
int fs_server_save(struct fs_server *server, struct state_writer *writer, struct err *err);
int fs_server_load(struct fs_server *server, struct state_section *section, struct err *err);

/* Forgets everything the guest holds, as INIT and DESTROY do. THREAD-SAFE. */
void fs_server_reset(struct fs_server *server);
