#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/fs/request.h"

#define BUCKETS_MAX 65536
#define ID_UNMAPPED 65534

void proc_fd(int fd, char ret[PROC_FD_SIZE])
{
        snprintf(ret, PROC_FD_SIZE, "/proc/self/fd/%d", fd);
}

int node_reopen(int fd, int flags)
{
        char path[PROC_FD_SIZE];
        proc_fd(fd, path);
        int opened = open(path, flags | O_CLOEXEC);
        return opened < 0 ? -errno : opened;
}

/* ---- ids and attributes ---- */

static uint32_t id_to_guest(const struct fs_id_map *map, uint32_t host)
{
        if (!map->count)
                return host;
        uint32_t offset = host - map->host;
        return host >= map->host && offset < map->count ? map->guest + offset : ID_UNMAPPED;
}

int id_to_host(const struct fs_id_map *map, uint32_t guest, uint32_t *ret)
{
        uint32_t offset = guest - map->guest;
        if (guest == UINT32_MAX || (map->count && (guest < map->guest || offset >= map->count)))
                return -EOVERFLOW;
        *ret = map->count ? map->host + offset : guest;
        return 0;
}

void attr_fill(const struct fs_server *s, const struct stat *st, struct fuse_attr *ret)
{
        *ret = (struct fuse_attr){
                .ino = st->st_ino,
                .size = (uint64_t)st->st_size,
                .blocks = (uint64_t)st->st_blocks,
                .atime = (uint64_t)st->st_atim.tv_sec,
                .mtime = (uint64_t)st->st_mtim.tv_sec,
                .ctime = (uint64_t)st->st_ctim.tv_sec,
                .atimensec = (uint32_t)st->st_atim.tv_nsec,
                .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
                .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
                .mode = st->st_mode,
                .nlink = (uint32_t)st->st_nlink,
                .uid = id_to_guest(&s->uids, st->st_uid),
                .gid = id_to_guest(&s->gids, st->st_gid),
                /* as the kernel's new_encode_dev(): what FUSE carries */
                .rdev = (minor(st->st_rdev) & 0xff) | major(st->st_rdev) << 8 |
                        (minor(st->st_rdev) & ~0xffu) << 12,
                .blksize = (uint32_t)st->st_blksize,
        };
}

/* ---- the table ---- */

static struct node **bucket(struct fs_server *s, dev_t dev, ino_t ino)
{
        uint64_t hash = (ino ^ dev << 32) * 0x9e3779b97f4a7c15;
        return &s->buckets[hash >> 40 & s->buckets_mask];
}

/* Lock held. Closes what nobody holds any more. */
static void collect(struct fs_server *s, struct node *node)
{
        if (node->references || node->lookups)
                return;
        struct node **at = bucket(s, node->dev, node->ino);
        while (*at != node)
                at = &(*at)->next;
        *at = node->next;
        slots_remove(&s->nodes, node->number);
        close(node->fd);
        free(node);
}

struct node *node_get(struct fs_server *s, uint64_t number)
{
        pthread_mutex_lock(&s->lock);
        struct node *node = slots_get(&s->nodes, number);
        if (node)
                node->references++;
        pthread_mutex_unlock(&s->lock);
        return node;
}

void node_put(struct fs_server *s, struct node *node)
{
        pthread_mutex_lock(&s->lock);
        node->references--;
        collect(s, node);
        pthread_mutex_unlock(&s->lock);
}

void node_forget(struct fs_server *s, uint64_t number, uint64_t lookups)
{
        pthread_mutex_lock(&s->lock);
        struct node *node = slots_get(&s->nodes, number);
        if (node) {
                node->lookups -= lookups < node->lookups ? lookups : node->lookups;
                collect(s, node);
        }
        pthread_mutex_unlock(&s->lock);
}

void node_forget_all(struct fs_server *s)
{
        pthread_mutex_lock(&s->lock);
        for (uint32_t i = 0; i < s->nodes.length; i++) {
                struct node *node = s->nodes.slots[i].object;
                if (node) {
                        node->lookups = 0;
                        collect(s, node);
                }
        }
        pthread_mutex_unlock(&s->lock);
}

/* Lock held. */
static struct node *find(struct fs_server *s, const struct stat *st)
{
        struct node *node = *bucket(s, st->st_dev, st->st_ino);
        while (node && (node->dev != st->st_dev || node->ino != st->st_ino))
                node = node->next;
        return node;
}

/* One that is not there. `number` 0: a new one. Lock held. */
static int make(struct fs_server *s, int fd, const struct stat *st, uint64_t number,
                struct node **ret)
{
        struct node **at = bucket(s, st->st_dev, st->st_ino), *node = new0(struct node);
        *node = (struct node){ .number = number,
                               .dev = st->st_dev,
                               .ino = st->st_ino,
                               .type = st->st_mode & S_IFMT,
                               .fd = fd,
                               .next = *at };
        int r = number ? slots_put(&s->nodes, number, node)
                       : slots_add(&s->nodes, node, &node->number);
        if (r < 0) {
                close(fd);
                free(node);
                return r;
        }
        *at = node;
        *ret = node;
        return 0;
}

/* Lock held. */
static int insert(struct fs_server *s, int fd, const struct stat *st, struct node **ret)
{
        struct node *node = find(s, st);
        if (!node)
                return make(s, fd, st, 0, ret);
        close(fd);
        *ret = node;
        return 0;
}

int node_put_back(struct fs_server *s, int fd, const struct stat *st, uint64_t number,
                  uint64_t lookups)
{
        struct node *node;
        int r = number ? 0 : -EINVAL;
        pthread_mutex_lock(&s->lock);
        if (r == 0 && find(s, st))
                r = -EEXIST;
        if (r < 0)
                close(fd);
        else
                r = make(s, fd, st, number, &node);
        if (r == 0)
                node->lookups = lookups;
        pthread_mutex_unlock(&s->lock);
        return r;
}

/* The number, for the node itself may be forgotten as soon as the lock is free. */
static int enter(struct fs_server *s, int fd, const struct stat *st, uint64_t *ret)
{
        struct node *node;
        pthread_mutex_lock(&s->lock);
        int r = insert(s, fd, st, &node);
        if (r == 0) {
                node->lookups++;
                *ret = node->number;
        }
        pthread_mutex_unlock(&s->lock);
        return r;
}

int node_init(struct fs_server *s, int fd, uint32_t max)
{
        struct stat st;
        uint32_t buckets = 256;
        while (buckets < max && buckets < BUCKETS_MAX)
                buckets *= 2;
        s->buckets = xcalloc(buckets, sizeof(*s->buckets));
        s->buckets_mask = buckets - 1;
        slots_init(&s->nodes, max);
        if (fstat(fd, &st) < 0) {
                int r = -errno;
                close(fd);
                return r;
        }
        int r = insert(s, fd, &st, &s->root); /* the first: FUSE_ROOT_ID */
        if (r == 0)
                s->root->references = 1;
        return r;
}

void node_finish(struct fs_server *s)
{
        node_forget_all(s);
        if (s->root)
                node_put(s, s->root);
        slots_finish(&s->nodes);
        free(s->buckets);
}

/* ---- looking up ---- */

int node_open_child(const struct fs_server *s, const struct node *parent, const char *name,
                    int *ret, struct stat *st)
{
        struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = s->resolve };
        auto_fd fd = (int)syscall(SYS_openat2, parent->fd, name, &how, sizeof(how));
        if (fd < 0)
                return -errno;
        if (fstat(fd, st) < 0)
                return -errno;
        *ret = take_fd(fd);
        return 0;
}

int node_entry(struct fs_server *s, int fd, const struct stat *st, struct fuse_entry_out *ret)
{
        uint64_t number = 0;
        int r = enter(s, fd, st, &number);
        if (r < 0)
                return r;
        *ret = (struct fuse_entry_out){ .nodeid = number,
                                        .entry_valid = s->valid_ns / NS_PER_S,
                                        .entry_valid_nsec = s->valid_ns % NS_PER_S,
                                        .attr_valid = s->valid_ns / NS_PER_S,
                                        .attr_valid_nsec = s->valid_ns % NS_PER_S };
        attr_fill(s, st, &ret->attr);
        return 0;
}

int node_lookup(struct fs_server *s, const struct node *parent, const char *name,
                struct fuse_entry_out *ret)
{
        int fd;
        struct stat st;
        int r = node_open_child(s, parent, name, &fd, &st);
        return r < 0 ? r : node_entry(s, fd, &st, ret);
}
