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

struct unpacked {
        uint8_t *bytes;
        size_t size, filled;
};

static int take(void *arg, const void *data, size_t size, struct err *err)
{
        struct unpacked *to = arg;
        if (size > to->size - to->filled)
                return err_plain(err, EBADMSG, "more is packed than the image says");
        memcpy(to->bytes + to->filled, data, size);
        to->filled += size;
        return 0;
}

static bool unpack_lz4(const uint8_t *at, size_t left, struct unpacked *to)
{
        at += SIZE_BYTES, left -= SIZE_BYTES; /* the magic number */
        while (left > SIZE_BYTES && to->filled < to->size) {
                size_t packed = boot_get(at, SIZE_BYTES);
                size_t room = to->size - to->filled;
                at += SIZE_BYTES, left -= SIZE_BYTES;
                if (packed > left || packed > LZ4_BLOCK_MAX * 2)
                        return false;
                int n = LZ4_decompress_safe((const char *)at, (char *)to->bytes + to->filled,
                                            (int)packed,
                                            room > LZ4_BLOCK_MAX ? LZ4_BLOCK_MAX : (int)room);
                if (n <= 0)
                        return false;
                to->filled += (size_t)n;
                at += packed, left -= packed;
        }
        return true;
}

static bool unpack_stream(enum compression format, const uint8_t *at, size_t size,
                          struct unpacked *to)
{
        auto_decompressor d = NULL;
        /* gzip's own end is the size, the others have it behind theirs. */
        size_t packed = format == COMPRESSION_GZIP ? size : size - SIZE_BYTES;
        return decompressor_create(format, take, to, &d, NULL) == 0 &&
               decompressor_write(d, at, packed, NULL) == 0 && decompressor_finish(d, NULL) == 0;
}

bool boot_unpack(const struct boot_file *k, struct boot_file *ret)
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
        struct unpacked to = { .size = boot_get(payload + length - SIZE_BYTES, SIZE_BYTES) };
        if ((!lz4 && format == COMPRESSION_NONE) || to.size == 0 || to.size > BOOT_UNPACKED_MAX)
                return false;
        void *map = mmap(NULL, to.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED)
                return false;
        /* Every page of it is about to be written. */
        (void)madvise(map, to.size, MADV_HUGEPAGE);
        to.bytes = map;
        bool whole = lz4 ? unpack_lz4(payload, length, &to)
                         : unpack_stream(format, payload, length, &to);
        *ret = (struct boot_file){ to.bytes, to.size };
        if (whole && to.filled == to.size && boot_is_elf(ret))
                return true;
        munmap(map, to.size);
        return false;
}
