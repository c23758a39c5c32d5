/* ELF images: PVH (a note gives the 32-bit entry) and multiboot. */
#include <elf.h>
#include <string.h>

#include "base/auto.h"
#include "vmm/boot/loader.h"
#include "vmm/layout.h"

#define NOTE_PVH_ENTRY   18
#define START_MAGIC      0x336ec578u
#define START_INFO       LAYOUT_BOOT_PARAMS
#define START_MAP        (START_INFO + 0x100)
#define START_MODULES    (START_INFO + 0x400)
#define MULTIBOOT_MAGIC  0x1badb002u
#define MULTIBOOT_WITHIN 8192u
#define MB_INFO          LAYOUT_BOOT_PARAMS
#define MB_MAP           (MB_INFO + 0x100)
#define MB_MODULES       (MB_INFO + 0x400)
#define MB_NAME          (MB_INFO + 0x480)
#define MB_AOUT_KLUDGE   0x00010000u
#define MB_HAS           (1u | 4u | 0x40u | 0x200u) /* memory, cmdline, map, loader name */
#define MB_HAS_MODULES   8u

/* One program header, of either class. */
struct segment {
        uint32_t type;
        uint64_t offset, paddr, file_size, memory_size;
};

struct elf {
        const struct boot_file *file;
        bool wide;
        uint64_t entry, table;
        unsigned length, entry_size;
};

bool boot_is_elf(const struct boot_file *k)
{
        return k->size >= sizeof(Elf64_Ehdr) && memcmp(k->bytes, ELFMAG, SELFMAG) == 0 &&
               k->bytes[EI_DATA] == ELFDATA2LSB;
}

static bool within(const struct boot_file *f, uint64_t offset, uint64_t size)
{
        return offset <= f->size && size <= f->size - offset;
}

static int elf_open(const struct boot_file *k, struct elf *e, struct err *err)
{
        *e = (struct elf){ .file = k, .wide = k->bytes[EI_CLASS] == ELFCLASS64 };
        if (e->wide) {
                Elf64_Ehdr h;
                memcpy(&h, k->bytes, sizeof(h));
                e->entry = h.e_entry, e->table = h.e_phoff;
                e->length = h.e_phnum, e->entry_size = sizeof(Elf64_Phdr);
        } else {
                Elf32_Ehdr h;
                memcpy(&h, k->bytes, sizeof(h));
                e->entry = h.e_entry, e->table = h.e_phoff;
                e->length = h.e_phnum, e->entry_size = sizeof(Elf32_Phdr);
        }
        if (!within(k, e->table, (uint64_t)e->length * e->entry_size))
                return err_plain(err, ENOEXEC, "ELF program headers lie outside of the file");
        return 0;
}

static struct segment elf_segment(const struct elf *e, unsigned i)
{
        const uint8_t *at = e->file->bytes + e->table + (uint64_t)i * e->entry_size;
        if (e->wide) {
                Elf64_Phdr p;
                memcpy(&p, at, sizeof(p));
                return (struct segment){ p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz };
        }
        Elf32_Phdr p;
        memcpy(&p, at, sizeof(p));
        return (struct segment){ p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz };
}

/* Below the kernel's place the loader keeps what it hands over; small test kernels may lie
 * between that. */
static bool placed(const struct memory *memory, const struct segment *s)
{
        bool small = s->paddr >= LAYOUT_LOW_KERNEL && s->paddr < LAYOUT_CMDLINE &&
                     s->memory_size <= LAYOUT_CMDLINE - s->paddr;
        if (s->paddr < LAYOUT_KERNEL && !small)
                return false;
        return memory_at(memory, gpa(s->paddr), s->memory_size) != NULL;
}

static bool loadable(const struct segment *s)
{
        return s->type == PT_LOAD && s->memory_size;
}

/* Whether all loadable segments are in the file, of which *e may know the start only, and fit;
 * *ret_end is where the highest of them ends. */
static int elf_check(const struct elf *e, size_t file_size, const struct memory *memory,
                     uint64_t *ret_end, struct err *err)
{
        const struct boot_file whole = { .size = file_size };
        *ret_end = LAYOUT_KERNEL;
        for (unsigned i = 0; i < e->length; i++) {
                struct segment s = elf_segment(e, i);
                if (!loadable(&s))
                        continue;
                if (s.file_size > s.memory_size || !within(&whole, s.offset, s.file_size))
                        return err_plain(err, ENOEXEC, "ELF segment %u lies outside of the file",
                                         i);
                if (!placed(memory, &s))
                        return err_plain(err, ENOMEM,
                                         "ELF segment %u wants %llu KiB at 0x%llx: not memory of"
                                         " this machine",
                                         i, (unsigned long long)(s.memory_size >> 10),
                                         (unsigned long long)s.paddr);
                if (s.paddr + s.memory_size > *ret_end)
                        *ret_end = s.paddr + s.memory_size;
        }
        return 0;
}

/* Copies the loadable segments. */
static int elf_load(const struct elf *e, const struct memory *memory, uint64_t *ret_end,
                    struct err *err)
{
        int r = elf_check(e, e->file->size, memory, ret_end, err);
        for (unsigned i = 0; r == 0 && i < e->length; i++) {
                struct segment s = elf_segment(e, i);
                if (loadable(&s))
                        memory_load(memory, gpa(s.paddr), e->file->bytes + s.offset, s.file_size,
                                    s.memory_size);
        }
        return r;
}

static bool note_entry(const struct boot_file *f, struct segment s, uint64_t *ret)
{
        uint64_t at = s.offset, end = s.offset + s.file_size;
        if (!within(f, s.offset, s.file_size))
                return false;
        while (end - at >= 12) {
                uint64_t name_size = boot_get(f->bytes + at, 4);
                uint64_t size = boot_get(f->bytes + at + 4, 4);
                uint64_t type = boot_get(f->bytes + at + 8, 4);
                uint64_t data = at + 12 + ((name_size + 3) & ~3ull);
                uint64_t next = data + ((size + 3) & ~3ull);
                if (next > end)
                        return false;
                if (type == NOTE_PVH_ENTRY && name_size == 4 &&
                    memcmp(f->bytes + at + 12, "Xen", 4) == 0 && (size == 4 || size == 8)) {
                        *ret = boot_get(f->bytes + data, (unsigned)size);
                        return true;
                }
                at = next;
        }
        return false;
}

static void pvh_info(const struct memory *memory, const struct boot_image *image, uint64_t initrd)
{
        struct boot_range ranges[BOOT_RANGES];
        unsigned n = boot_map(memory, ranges);
        for (unsigned i = 0; i < n; i++) {
                uint64_t row[3] = { ranges[i].base, ranges[i].size, ranges[i].type };
                memory_write(memory, gpa(START_MAP + i * sizeof(row)), row, sizeof(row));
        }
        struct {
                uint32_t magic, version, flags, modules;
                uint64_t modules_at, cmdline, rsdp, map;
                uint32_t map_length, reserved;
        } info = { START_MAGIC, 1, 0, initrd ? 1 : 0, START_MODULES, LAYOUT_CMDLINE, LAYOUT_ACPI,
                   START_MAP,   n, 0 };
        uint64_t module[4] = { initrd, image->initrd.size, 0, 0 };
        memory_write(memory, gpa(START_MODULES), module, sizeof(module));
        memory_write(memory, gpa(START_INFO), &info, sizeof(info));
}

static bool find_pvh(const struct elf *e, uint64_t *ret_entry)
{
        for (unsigned i = 0; i < e->length; i++) {
                struct segment s = elf_segment(e, i);
                if (s.type == PT_NOTE && note_entry(e->file, s, ret_entry))
                        return true;
        }
        return false;
}

/* Beside a kernel that is in its place and ends at `end`. */
static int pvh_finish(const struct memory *memory, const struct boot_image *image, uint64_t entry,
                      uint64_t end, struct boot_entry *ret, struct err *err)
{
        uint64_t initrd = 0;
        int r = boot_place_initrd(memory, image, end, UINT32_MAX, &initrd, err);
        if (r < 0)
                return r;
        pvh_info(memory, image, initrd);
        boot_place_cmdline(memory, image);
        boot_write_tables(memory, BOOT_PVH);
        *ret = (struct boot_entry){ BOOT_PVH, entry, START_INFO };
        return 0;
}

int boot_pvh(const struct memory *memory, const struct boot_image *image, struct boot_entry *ret,
             struct err *err)
{
        struct elf e;
        uint64_t entry = 0, end = 0;
        int r = elf_open(&image->kernel, &e, err);
        if (r == 0 && !find_pvh(&e, &entry))
                return err_plain(err, ENOEXEC,
                                 "ELF without a PVH entry note; a Linux kernel needs CONFIG_PVH, or"
                                 " use its bzImage");
        if (r == 0)
                r = elf_load(&e, memory, &end, err);
        return r < 0 ? r : pvh_finish(memory, image, entry, end, ret, err);
}

/* ---- the same, coming in pieces ---- */

#define HEAD_SIZE 4096u /* the program headers are within */

struct incoming {
        const struct memory *memory;
        struct err *err;
        int result; /* an error of the image; 0 otherwise */
        uint8_t head[HEAD_SIZE];
        struct boot_file file; /* the head */
        struct elf elf;
        bool open, enters;
        uint64_t entry, end;
};

/* Zeros where segments are, or only behind what the file has of them. */
static void clear_segments(const struct incoming *in, bool skip_file)
{
        for (unsigned i = 0; i < in->elf.length; i++) {
                struct segment s = elf_segment(&in->elf, i);
                uint64_t skipped = skip_file ? s.file_size : 0;
                if (loadable(&s) && s.memory_size > skipped)
                        memory_load(in->memory, gpa(s.paddr + skipped), in->head, 0,
                                    s.memory_size - skipped);
        }
}

static int incoming_open(struct incoming *in, const struct boot_piece *piece)
{
        in->file = (struct boot_file){ in->head,
                                       piece->size < HEAD_SIZE ? piece->size : HEAD_SIZE };
        memcpy(in->head, piece->bytes, in->file.size);
        if (!boot_is_elf(&in->file) || elf_open(&in->file, &in->elf, NULL) < 0)
                return -ENOEXEC;
        in->result = elf_check(&in->elf, piece->whole_size, in->memory, &in->end, in->err);
        if (in->result < 0)
                return in->result;
        in->open = true;
        clear_segments(in, true);
        return 0;
}

/* What a piece has of a segment; a note must be there as a whole. */
static void incoming_segment(struct incoming *in, const struct boot_piece *piece, struct segment s)
{
        const struct boot_file file = { piece->bytes, piece->size };
        uint64_t end = piece->offset + piece->size;
        if (s.type == PT_NOTE && s.offset >= piece->offset) {
                s.offset -= piece->offset;
                in->enters |= note_entry(&file, s, &in->entry);
        }
        if (!loadable(&s))
                return;
        uint64_t from = s.offset > piece->offset ? s.offset : piece->offset;
        uint64_t to = s.offset + s.file_size < end ? s.offset + s.file_size : end;
        if (from < to)
                memory_load(in->memory, gpa(s.paddr + (from - s.offset)),
                            piece->bytes + (from - piece->offset), to - from, to - from);
}

static int incoming_piece(void *arg, const struct boot_piece *piece)
{
        struct incoming *in = arg;
        int r = in->open ? 0 : incoming_open(in, piece);
        for (unsigned i = 0; r == 0 && i < in->elf.length; i++)
                incoming_segment(in, piece, elf_segment(&in->elf, i));
        return r;
}

int boot_pvh_packed(const struct memory *memory, const struct boot_image *image,
                    struct boot_entry *ret, struct err *err)
{
        struct incoming in = { .memory = memory, .err = err };
        bool whole = boot_unpack(&image->kernel, incoming_piece, &in);
        if (in.result < 0)
                return in.result;
        if (!whole || !in.enters) {
                if (in.open)
                        clear_segments(&in, false);
                return 0;
        }
        int r = pvh_finish(memory, image, in.entry, in.end, ret, err);
        return r < 0 ? r : 1;
}

/* ---- multiboot ---- */

static bool multiboot_header(const struct boot_file *k, size_t *ret_at)
{
        for (size_t at = 0; at + 12 <= k->size && at + 12 <= MULTIBOOT_WITHIN; at += 4) {
                uint32_t magic = (uint32_t)boot_get(k->bytes + at, 4);
                uint32_t flags = (uint32_t)boot_get(k->bytes + at + 4, 4);
                uint32_t checksum = (uint32_t)boot_get(k->bytes + at + 8, 4);
                if (magic == MULTIBOOT_MAGIC && magic + flags + checksum == 0) {
                        *ret_at = at;
                        return true;
                }
        }
        return false;
}

bool boot_is_multiboot(const struct boot_file *k)
{
        size_t at;
        return multiboot_header(k, &at);
}

static int load_kludge(const struct memory *memory, const struct boot_file *k, size_t header,
                       uint64_t *ret_entry, uint64_t *ret_end, struct err *err)
{
        if (header + 32 > k->size)
                return err_plain(err, ENOEXEC, "multiboot header is truncated");
        const uint8_t *h = k->bytes + header;
        uint64_t header_at = boot_get(h + 12, 4), load = boot_get(h + 16, 4);
        uint64_t load_end = boot_get(h + 20, 4), bss_end = boot_get(h + 24, 4);
        uint64_t start = header - (header_at - load);
        if (load > header_at || header_at - load > header || (load_end && load_end < load))
                return err_plain(err, ENOEXEC, "multiboot header: load addresses are not in order");
        uint64_t size = load_end ? load_end - load : k->size - start;
        uint64_t whole = bss_end > load + size ? bss_end - load : size;
        if (load < LAYOUT_KERNEL || !within(k, start, size) ||
            memory_load(memory, gpa(load), k->bytes + start, size, whole) < 0)
                return err_plain(err, ENOEXEC, "multiboot image does not fit file or memory");
        *ret_entry = boot_get(h + 28, 4);
        *ret_end = load + whole;
        return 0;
}

static void multiboot_info(const struct memory *memory, const struct boot_image *image,
                           uint64_t initrd)
{
        static const char loader[] = "isle-vmm";
        struct boot_range ranges[BOOT_RANGES];
        unsigned n = boot_map(memory, ranges);
        for (unsigned i = 0; i < n; i++) {
                struct {
                        uint32_t size;
                        uint64_t base, length;
                        uint32_t type;
                } __attribute__((packed))
                row = { 20, ranges[i].base, ranges[i].size, ranges[i].type };
                memory_write(memory, gpa(MB_MAP + i * sizeof(row)), &row, sizeof(row));
        }
        uint32_t module[4] = { (uint32_t)initrd, (uint32_t)(initrd + image->initrd.size),
                               LAYOUT_CMDLINE, 0 };
        uint32_t info[22] = { MB_HAS | (initrd ? MB_HAS_MODULES : 0),
                              (uint32_t)(LAYOUT_LOW_END >> 10),
                              (uint32_t)((memory->slots[0].size_bytes - LAYOUT_KERNEL) >> 10) };
        info[4] = LAYOUT_CMDLINE;
        info[5] = initrd ? 1 : 0;
        info[6] = MB_MODULES;
        info[11] = n * 24;
        info[12] = MB_MAP;
        info[16] = MB_NAME;
        memory_write(memory, gpa(MB_MODULES), module, sizeof(module));
        memory_write(memory, gpa(MB_NAME), loader, sizeof(loader));
        memory_write(memory, gpa(MB_INFO), info, sizeof(info));
}

int boot_multiboot(const struct memory *memory, const struct boot_image *image,
                   struct boot_entry *ret, struct err *err)
{
        const struct boot_file *k = &image->kernel;
        size_t header = 0;
        uint64_t entry = 0, end = 0, initrd = 0;
        multiboot_header(k, &header);
        bool kludge = boot_get(k->bytes + header + 4, 4) & MB_AOUT_KLUDGE;
        int r;
        if (kludge) {
                r = load_kludge(memory, k, header, &entry, &end, err);
        } else if (boot_is_elf(k)) {
                struct elf e;
                r = elf_open(k, &e, err);
                if (r == 0)
                        r = elf_load(&e, memory, &end, err);
                entry = e.entry;
        } else {
                r = err_plain(err, ENOEXEC, "multiboot image that says neither ELF nor addresses");
        }
        if (r == 0)
                r = boot_place_initrd(memory, image, end, UINT32_MAX, &initrd, err);
        if (r < 0)
                return r;
        multiboot_info(memory, image, initrd);
        boot_place_cmdline(memory, image);
        boot_write_tables(memory, BOOT_MULTIBOOT);
        *ret = (struct boot_entry){ BOOT_MULTIBOOT, entry, MB_INFO };
        return 0;
}
