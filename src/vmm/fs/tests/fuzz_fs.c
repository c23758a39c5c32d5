/* Requests from the fuzzer against a small tree that is made anew for each input.
 *
 * A request is: opcode, node, room for the answer (0: none, 1: a header less a byte, else that
 * many times 64), what the header says more than is there, two bytes of size of the arguments
 * (at most what is left), the arguments. Beside crashes, what lies outside of the tree must
 * never come in an answer nor change: the tree has links to it. */
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "vmm/fs/server.h"

#define REQUESTS   64
#define FILE_BYTES (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char top[64], root[80];
static char secret[33];
static int top_fd;

static void must(bool good)
{
        if (!good)
                abort();
}

static void put(int dirfd, const char *name, const char *text)
{
        must(file_replace(dirfd, name, text, strlen(text), 0644, false, NULL) == 0);
}

static void remove_all(void)
{
        file_remove_tree(AT_FDCWD, top, NULL);
}

/* top/secret stays outside of what is served, top/root. */
static void once(void)
{
        uint64_t random[2];
        if (top[0])
                return;
        strcpy(top,
               access("/dev/shm", W_OK) == 0 ? "/dev/shm/fuzz-fs-XXXXXX" : "/tmp/fuzz-fs-XXXXXX");
        must(mkdtemp(top) != NULL && getrandom(random, sizeof(random), 0) == sizeof(random));
        atexit(remove_all);
        snprintf(root, sizeof(root), "%s/root", top);
        snprintf(secret, sizeof(secret), "%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
        top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        put(top_fd, "secret", secret);
        const struct rlimit limit = { FILE_BYTES, FILE_BYTES };
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
}

static void make_tree(void)
{
        must(file_remove_tree(top_fd, "root", NULL) == 0 && mkdirat(top_fd, "root", 0755) == 0);
        auto_fd fd = openat(top_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        must(fd >= 0 && mkdirat(fd, "d", 0755) == 0);
        put(fd, "f", "some text");
        put(fd, "d/g", "more text");
        must(symlinkat("../secret", fd, "s") == 0 && symlinkat("..", fd, "u") == 0);
        must(mkfifoat(fd, "p", 0600) == 0);
}

static bool unchanged(void)
{
        auto_free char *text = NULL;
        return file_read(top_fd, "secret", 100, &text, NULL, NULL) == 0 &&
               strcmp(text, secret) == 0;
}

/* Returns the bytes used of `data`. */
static size_t send(struct fs_server *server, const uint8_t *data, size_t size)
{
        static uint8_t bytes[sizeof(struct fuse_in_header) + 65536], answer[255 * 64];
        size_t args = data[4] | (size_t)data[5] << 8;
        if (args > size - 6)
                args = size - 6;
        struct fuse_in_header header = {
                .len = (uint32_t)(sizeof(header) + args + data[3]),
                .opcode = data[0],
                .unique = 1,
                .nodeid = data[1],
        };
        memcpy(bytes, &header, sizeof(header));
        memcpy(bytes + sizeof(header), data + 6, args);
        size_t room = data[2] == 1 ? 15 : data[2] * 64u;
        size_t first = room < 20 ? room : 20;
        const struct iovec out[] = { { bytes, 30 }, { bytes + 30, sizeof(header) + args - 30 } };
        const struct iovec in[] = { { answer, first }, { answer + first, room - first } };
        size_t n = fs_server_handle(server, out, 2, in, 2);
        must(n <= room && !memmem(answer, n, secret, strlen(secret)));
        if (n) {
                struct fuse_out_header back;
                memcpy(&back, answer, sizeof(back));
                must(back.len == n && back.unique == 1 && back.error <= 0 && back.error > -512);
        }
        return 6 + args;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct fs_server *server;
        once();
        make_tree();
        const struct fs_options options = { .root = root,
                                            .read_only = size && data[0] & 1,
                                            .inodes_max = 6 };
        must(fs_server_create(&options, &server, NULL) == 0);
        for (size_t i = 0, at = 1; i < REQUESTS && at + 6 <= size; i++)
                at += send(server, data + at, size - at);
        fs_server_destroy(server);
        must(unchanged());
        return 0;
}
