/* Any bytes as what a guest held of a small tree, in a snapshot; then the guest goes on and asks
 * for everything that it may hold by now. */
#include <linux/fuse.h>

#include "vmm/fs/server.h"
#include "vmm/fs/tests/fuzz_tree.h"
#include "vmm/snapshot/state.h"

#define NUMBERS 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct fs_server *server, uint32_t opcode, uint64_t node, const void *args,
                size_t size)
{
        static uint8_t bytes[sizeof(struct fuse_in_header) + 64], answer[4096];
        struct fuse_in_header header = { .len = (uint32_t)(sizeof(header) + size),
                                         .opcode = opcode,
                                         .unique = 1,
                                         .nodeid = node };
        memcpy(bytes, &header, sizeof(header));
        memcpy(bytes + sizeof(header), args, size);
        const struct iovec out = { bytes, header.len }, in = { answer, sizeof(answer) };
        size_t n = fs_server_handle(server, &out, 1, &in, 1);
        must(n <= sizeof(answer) && !memmem(answer, n, fuzz_secret, strlen(fuzz_secret)));
}

static void go_on(struct fs_server *server)
{
        for (uint64_t node = 0; node < NUMBERS; node++) {
                ask(server, FUSE_LOOKUP, node, "g", 2);
                ask(server, FUSE_LOOKUP, node, "secret", 7);
                ask(server, FUSE_GETATTR, node, &(struct fuse_getattr_in){ 0 },
                    sizeof(struct fuse_getattr_in));
                ask(server, FUSE_OPEN, node, &(struct fuse_open_in){ 0 },
                    sizeof(struct fuse_open_in));
        }
        for (uint64_t handle = 0; handle < NUMBERS; handle++) {
                const struct fuse_read_in read = { .fh = handle, .size = 1024 };
                const struct fuse_release_in release = { .fh = handle };
                ask(server, FUSE_READ, 1, &read, sizeof(read));
                ask(server, FUSE_READDIRPLUS, 1, &read, sizeof(read));
                ask(server, FUSE_RELEASE, 1, &release, sizeof(release));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct fs_server *server;
        struct err err = { 0 };
        if (!size)
                return 0;
        fuzz_tree_once();
        fuzz_tree_make();
        const struct fs_options options = { .root = fuzz_root,
                                            .read_only = data[0] & 1,
                                            .exclusive = data[0] & 2,
                                            .inodes_max = 6 };
        must(fs_server_create(&options, &server, NULL) == 0);
        struct state_section s = { .file = "fuzz",
                                   .name = "virtio-fs.0",
                                   .version = 1,
                                   .data = data + 1,
                                   .size = size - 1 };
        if (fs_server_load(server, &s, &err) == 0)
                go_on(server);
        else
                must(err.text[0]);
        struct state_writer w = { .now_ns = 1 };
        must(fs_server_save(server, &w, &err) == 0);
        state_writer_finish(&w);
        fs_server_destroy(server);
        must(fuzz_secret_unchanged());
        return 0;
}
