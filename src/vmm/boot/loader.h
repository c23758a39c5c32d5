/* What the loaders of the boot protocols share. Pure but for guest memory: files
 * arrive as bytes, so that they can be fuzzed. */
#pragma once

#include "vmm/boot/boot.h"

struct boot_file {
        const uint8_t *bytes;
        size_t size;
};

struct boot_image {
        struct boot_file kernel, initrd; /* initrd of size 0: none */
        const char *cmdline;
        bool packed; /* a bzImage unpacks itself, which also moves it to a random place */
};

#define BOOT_UNPACKED_MAX ((size_t)256 << 20)

int boot_load_image(const struct memory *memory, const struct boot_image *image,
                    struct boot_entry *ret, struct err *err);

bool boot_is_linux(const struct boot_file *kernel);
bool boot_is_elf(const struct boot_file *kernel);
bool boot_is_multiboot(const struct boot_file *kernel);
/* A part of what a bzImage carries, which has `whole_size` bytes. */
struct boot_piece {
        const uint8_t *bytes;
        size_t size, offset, whole_size;
};
/* Gives it to `take` in order, piece by piece, the first as large as others or all there is;
 * negative ends that. False where it did, where there is nothing, or packed in a way that we do not
 * know. */
bool boot_unpack(const struct boot_file *bzimage,
                 int (*take)(void *arg, const struct boot_piece *piece), void *arg);
/* boot_pvh() of the ELF image within a bzImage. 1, or 0 where there is none that could be entered
 * so: then the image unpacks itself. */
int boot_pvh_packed(const struct memory *memory, const struct boot_image *image,
                    struct boot_entry *ret, struct err *err);
/* What its header asks for: of the machine, and of the command line. */
int boot_check_linux(const struct memory *memory, const struct boot_image *image, struct err *err);
int boot_linux(const struct memory *memory, const struct boot_image *image, struct boot_entry *ret,
               struct err *err);
int boot_pvh(const struct memory *memory, const struct boot_image *image, struct boot_entry *ret,
             struct err *err);
int boot_multiboot(const struct memory *memory, const struct boot_image *image,
                   struct boot_entry *ret, struct err *err);

int boot_place_cmdline(const struct memory *memory, const struct boot_image *image);
/* As high as possible below `limit`; *ret_address is 0 without an initrd. */
int boot_place_initrd(const struct memory *memory, const struct boot_image *image,
                      uint64_t kernel_end, uint64_t limit, uint64_t *ret_address, struct err *err);
/* Descriptor and page tables that the entry state refers to. */
void boot_write_tables(const struct memory *memory, enum boot_protocol protocol);

/* The physical memory map in E820's types. */
enum boot_range_type { BOOT_USABLE = 1, BOOT_RESERVED = 2 };
struct boot_range {
        uint64_t base, size;
        enum boot_range_type type;
};
#define BOOT_RANGES (4 + MEMORY_SLOTS)
unsigned boot_map(const struct memory *memory, struct boot_range ranges[BOOT_RANGES]);

static inline uint64_t boot_get(const uint8_t *bytes, unsigned size)
{
        uint64_t value = 0;
        __builtin_memcpy(&value, bytes, size);
        return value;
}
