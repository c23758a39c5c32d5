/* Requests from the fuzzer against a small tree that is made anew for each input.
 *
 * A request is: opcode, node, room for the answer (0: none, 1: a header less a byte, else that
 * many times 64), what the header says more than is there, two bytes of size of the arguments
 * (at most what is left), the arguments. */
#include <linux/fuse.h>

#include "vmm/fs/server.h"
#include "vmm/fs/tests/fuzz_tree.h"

#define REQUESTS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
        must(n <= room && !memmem(answer, n, fuzz_secret, strlen(fuzz_secret)));
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
        fuzz_tree_once();
        fuzz_tree_make();
        const struct fs_options options = { .root = fuzz_root,
                                            .read_only = size && data[0] & 1,
                                            .inodes_max = 6 };
        must(fs_server_create(&options, &server, NULL) == 0);
        for (size_t i = 0, at = 1; i < REQUESTS && at + 6 <= size; i++)
                at += send(server, data + at, size - at);
        fs_server_destroy(server);
        must(fuzz_secret_unchanged());
        return 0;
}
