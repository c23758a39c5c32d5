/* An image, driven by lines on stdin, for tests/vm/test_disk_images.py:
 *
 *     disk-shell [-r] [-l LOG] IMAGE
 *     r OFFSET SIZE         prints the CRC-32 of what is read
 *     w OFFSET SIZE SEED    each sector gets the seed and its number, 16 bytes, over and over
 *     d OFFSET SIZE         discards
 *     z OFFSET SIZE UNMAP   writes zeroes
 *     f                     flushes
 *     m SEED                writes, reads, discards and flushes from four threads, each in
 *                           clusters of its own beside those of the others
 *
 * Each prints one line: "ok", or why not. With a log, all that changes the image's
 * file is recorded there in order, as a kind and two numbers of 64 bits:
 *     W offset size bytes   H offset size (space given back)   S 0 0 (a sync)
 *     F number 0 (that many lines have been answered) */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zlib.h>

#include "base/str.h"
#include "vmm/block/disk.h"

#define SIZE_MAX_BYTES (64u << 20)

static int log_fd = -1;
static uint8_t buffer[SIZE_MAX_BYTES];

static void must(bool good)
{
        if (!good)
                abort();
}

static void record(char kind, uint64_t a, uint64_t b)
{
        char head[17];
        if (log_fd < 0)
                return;
        head[0] = kind;
        memcpy(head + 1, &a, sizeof(a));
        memcpy(head + 9, &b, sizeof(b));
        must(write(log_fd, head, sizeof(head)) == sizeof(head));
}

/* ---- in the place of libc's ---- */

ssize_t pwritev(int fd, const struct iovec *iov, int length, off_t offset)
{
        ssize_t done = syscall(SYS_pwritev, fd, iov, length, offset, 0);
        if (done > 0 && log_fd >= 0) {
                size_t left = (size_t)done;
                record('W', (uint64_t)offset, left);
                for (int i = 0; left; i++) {
                        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
                        must(write(log_fd, iov[i].iov_base, n) == (ssize_t)n);
                        left -= n;
                }
        }
        return done;
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
        record('H', (uint64_t)offset, (uint64_t)size);
        return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

int fdatasync(int fd)
{
        record('S', 0, 0);
        return (int)syscall(SYS_fdatasync, fd);
}

/* ---- commands ---- */

static void pattern(uint8_t *bytes, uint64_t offset, uint64_t size, uint64_t seed)
{
        for (uint64_t at = 0; at < size; at += 16) {
                uint64_t sector = (offset + at) / DISK_SECTOR;
                memcpy(bytes + at, &seed, sizeof(seed));
                memcpy(bytes + at + 8, &sector, sizeof(sector));
        }
}

/* In two pieces, as a guest might. */
static int move(struct disk *disk, bool out, uint8_t *bytes, uint64_t offset, uint64_t size)
{
        size_t first = size / 3;
        struct iovec v[2] = { { bytes, first }, { bytes + first, size - first } };
        return out ? disk_write(disk, v, 2, offset) : disk_read(disk, v, 2, offset);
}

/* ---- threads ---- */

#define THREADS     4
#define CELL        4096u
#define CELLS       64u /* of each thread */
#define CELL_ROUNDS 400

struct player {
        struct disk *disk;
        pthread_t thread;
        unsigned number;
        unsigned seed;
        bool wrong;
};

/* Cell i of thread t is the (i * THREADS + t)th of the disk: they meet in clusters. */
static void *play(void *arg)
{
        struct player *p = arg;
        uint64_t seeds[CELLS] = { 0 };
        uint8_t bytes[CELL], expected[CELL];
        unsigned known[CELLS] = { 0 };
        for (unsigned i = 0; i < CELL_ROUNDS && !p->wrong; i++) {
                unsigned cell = (unsigned)rand_r(&p->seed) % CELLS;
                uint64_t at = ((uint64_t)cell * THREADS + p->number) * CELL;
                int r = 0;
                switch (rand_r(&p->seed) % 8) {
                case 0:
                        r = disk_flush(p->disk);
                        break;
                case 1:
                        r = disk_discard(p->disk, at, CELL);
                        known[cell] = 1;
                        break;
                case 2:
                case 3:
                case 4:
                        seeds[cell] = (uint64_t)p->seed << 8 | p->number;
                        known[cell] = 2;
                        pattern(bytes, at, CELL, seeds[cell]);
                        r = move(p->disk, true, bytes, at, CELL);
                        break;
                default:
                        r = move(p->disk, false, bytes, at, CELL);
                        memset(expected, 0, CELL);
                        if (known[cell] == 2)
                                pattern(expected, at, CELL, seeds[cell]);
                        p->wrong = known[cell] && memcmp(bytes, expected, CELL) != 0;
                }
                p->wrong = p->wrong || r < 0;
        }
        return NULL;
}

static int play_all(struct disk *disk, unsigned seed)
{
        struct player players[THREADS];
        bool wrong = false;
        for (unsigned i = 0; i < THREADS; i++) {
                players[i] = (struct player){ .disk = disk, .number = i, .seed = seed * 7 + i };
                must(pthread_create(&players[i].thread, NULL, play, &players[i]) == 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
                pthread_join(players[i].thread, NULL);
                wrong = wrong || players[i].wrong;
        }
        return wrong ? -EBADMSG : 0;
}

static int execute(struct disk *disk, const char *line)
{
        unsigned long long offset = 0, size = 0, more = 0;
        char verb = 0;
        (void)sscanf(line, "%c %llu %llu %llu", &verb, &offset, &size, &more);
        must(size <= SIZE_MAX_BYTES);
        switch (verb) {
        case 'r': {
                memset(buffer, 0xa5, size);
                int r = move(disk, false, buffer, offset, size);
                if (r == 0)
                        printf("%08lx ", crc32(0, buffer, (uInt)size));
                return r;
        }
        case 'w':
                pattern(buffer, offset, size, more);
                return move(disk, true, buffer, offset, size);
        case 'd':
                return disk_discard(disk, offset, size);
        case 'z':
                return disk_write_zeroes(disk, offset, size, more);
        case 'f':
                return disk_flush(disk);
        case 'm':
                return play_all(disk, (unsigned)offset);
        default:
                return -EINVAL;
        }
}

int main(int argc, char **argv)
{
        struct disk_options o = { 0 };
        struct disk *disk;
        struct err err = { 0 };
        char line[128];
        int option;
        while ((option = getopt(argc, argv, "rl:")) != -1) {
                if (option == 'r')
                        o.read_only = true;
                else if (option == 'l')
                        log_fd = open(optarg, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        }
        o.path = argv[optind];
        if (!o.path || disk_open(&o, &disk, &err) < 0) {
                fprintf(stderr, "disk-shell: %s\n", err_text(&err));
                return 1;
        }
        setlinebuf(stdout);
        printf("%llu\n", (unsigned long long)disk_size(disk));
        for (uint64_t n = 1; fgets(line, sizeof(line), stdin); n++) {
                int r = execute(disk, line);
                record('F', n, 0);
                puts(r < 0 ? strerror(-r) : "ok");
        }
        disk_close(disk);
        return 0;
}
