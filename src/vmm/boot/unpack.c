/* What a bzImage carries: the kernel proper, an ELF image, compressed. Unpacking it here
 * costs milliseconds; in the guest, by the image's own code, it is a third of the whole
 * boot on a software CPU.
 *
 * Source: Linux Documentation/arch/x86/boot.rst (payload_offset, payload_length; the last
 * four bytes of the payload are the size of what is packed); the LZ4 legacy frame: a
 * magic number, then blocks of up to 8 MiB with their packed size in front. */
#include <lz4.h>
#include <string.h>
#include <sys/mman.h>

#include "base/auto.h"
#include "codec/compress.h"
#include "vmm/boot/loader.h"

#define SETUP_SECTS      0x1f1
#define PAYLOAD_OFFSET   0x248
#define PAYLOAD_LENGTH   0x24c
#define HEADER_END       0x250
#define SIZE_BYTES       4
#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_BLOCK_MAX    (8 << 20)

/* What is unpacked goes through one buffer, which stays in the host's caches: memory for all of it
 * would cost more, to be cleared, than the unpacking itself. */
struct unpacker {
        struct boot_piece piece; /* offset: what went before the buffer */
        uint8_t *buffer;
        int (*take)(void *arg, const struct boot_piece *piece);
        void *arg;
};

static int hand_over(struct unpacker *u)
{
        size_t size = u->piece.size;
        int r = size ? u->take(u->arg, &u->piece) : 0;
        u->piece.offset += size;
        u->piece.size = 0;
        return r;
}

static int gather(void *arg, const void *data, size_t size, struct err *err)
{
        struct unpacker *u = arg;
        const uint8_t *from = data;
        struct boot_piece *p = &u->piece;
        if (size > p->whole_size - p->offset - p->size)
                return err_plain(err, EBADMSG, "more is packed than the image says");
        while (size) {
                size_t room = LZ4_BLOCK_MAX - p->size, part = size < room ? size : room;
                memcpy(u->buffer + p->size, from, part);
                p->size += part, from += part, size -= part;
                int r = p->size == LZ4_BLOCK_MAX ? hand_over(u) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

static bool unpack_lz4(const uint8_t *at, size_t left, struct unpacker *u)
{
        at += SIZE_BYTES, left -= SIZE_BYTES; /* the magic number */
        while (left > SIZE_BYTES && u->piece.offset < u->piece.whole_size) {
                size_t packed = boot_get(at, SIZE_BYTES);
                size_t room = u->piece.whole_size - u->piece.offset;
                at += SIZE_BYTES, left -= SIZE_BYTES;
                if (packed > left || packed > LZ4_BLOCK_MAX * 2)
                        return false;
                int n = LZ4_decompress_safe((const char *)at, (char *)u->buffer, (int)packed,
                                            room > LZ4_BLOCK_MAX ? LZ4_BLOCK_MAX : (int)room);
                if (n <= 0)
                        return false;
                u->piece.size = (size_t)n;
                if (hand_over(u) < 0)
                        return false;
                at += packed, left -= packed;
        }
        return true;
}

static bool unpack_stream(enum compression format, const uint8_t *at, size_t size,
                          struct unpacker *u)
{
        auto_decompressor d = NULL;
        /* gzip's own end is the size, the others have it behind theirs. */
        size_t packed = format == COMPRESSION_GZIP ? size : size - SIZE_BYTES;
        return decompressor_create(format, gather, u, &d, NULL) == 0 &&
               decompressor_write(d, at, packed, NULL) == 0 && decompressor_finish(d, NULL) == 0 &&
               hand_over(u) >= 0;
}

bool boot_unpack(const struct boot_file *k, int (*take)(void *arg, const struct boot_piece *piece),
                 void *arg)
{
        if (k->size < HEADER_END)
                return false;
        size_t setup = (k->bytes[SETUP_SECTS] ? k->bytes[SETUP_SECTS] + 1u : 5u) * 512u;
        size_t offset = setup + boot_get(k->bytes + PAYLOAD_OFFSET, 4);
        size_t length = boot_get(k->bytes + PAYLOAD_LENGTH, 4);
        if (offset > k->size || length > k->size - offset || length <= 2 * SIZE_BYTES)
                return false;
        const uint8_t *payload = k->bytes + offset;
        enum compression format = compression_detect(payload, length);
        bool lz4 = boot_get(payload, SIZE_BYTES) == LZ4_LEGACY_MAGIC;
        size_t size = boot_get(payload + length - SIZE_BYTES, SIZE_BYTES);
        if ((!lz4 && format == COMPRESSION_NONE) || size == 0 || size > BOOT_UNPACKED_MAX)
                return false;
        void *buffer = mmap(NULL, LZ4_BLOCK_MAX, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (buffer == MAP_FAILED)
                return false;
        (void)madvise(buffer, LZ4_BLOCK_MAX, MADV_HUGEPAGE);
        struct unpacker u = { { .bytes = buffer, .whole_size = size }, buffer, take, arg };
        bool whole = lz4 ? unpack_lz4(payload, length, &u)
                         : unpack_stream(format, payload, length, &u);
        munmap(buffer, LZ4_BLOCK_MAX);
        return whole && u.piece.offset == size;
}
