/* What a vCPU remembers of the guest's page tables: the software TLB, and what is kept to take the
 * right things out of it again. Filled and emptied by tlb.c, walk.c and spaces.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PAGE_SIZE_BYTES 4096u
#define PAGE_SHIFT      12u
#define PAGE_MASK       0xfffull

/* Privilege contexts of data accesses, one TLB table each. */
enum mem_context {
        CTX_KERNEL,    /* CPL 0-2; SMAP enforced */
        CTX_USER,      /* CPL 3 */
        CTX_KERNEL_AC, /* CPL 0-2 with EFLAGS.AC under SMAP */
        CTX_CHECKED,   /* never filled: every access is looked at (watchpoints, #AC) */
        CTX_COUNT
};

enum mem_access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

#define TLB_ENTRIES 4096u /* 16 MiB: two streams of half that share no place */

/* One table of the software TLB, direct-mapped by linear page. A tag is the page
 * negated, so that linear + tag is the offset in the page on a hit and out of
 * range otherwise; arrays rather than structs, because translated code indexes
 * them by 8. An empty tag (tlb_nothing()) hits nowhere in its own place. */
struct tlb {
        uint64_t read[TLB_ENTRIES], write[TLB_ENTRIES], fetch[TLB_ENTRIES];
        uint8_t *host[TLB_ENTRIES]; /* the page in our memory */
        uint64_t gpa[TLB_ENTRIES];  /* guest physical page | TLB_GLOBAL, TLB_LARGE, TLB_HUGE */
        uint64_t used[TLB_ENTRIES / 64], used_global[TLB_ENTRIES / 64]; /* places to flush */
        uint8_t key[TLB_ENTRIES];         /* protection key of the page */
        uint64_t keyed[TLB_ENTRIES / 64]; /* places that may have another than 0 */
        uint64_t keyed_words;             /* bit per word of `keyed` that is not 0 */
};

static inline unsigned tlb_index(uint64_t linear)
{
        return linear >> 12 & (TLB_ENTRIES - 1);
}

static inline uint64_t tlb_tag(uint64_t linear)
{
        return -(linear & ~PAGE_MASK);
}

/* The tag of a page that belongs elsewhere, and not next door: an access that
 * begins in front of a page must not seem to reach into it. */
static inline uint64_t tlb_nothing(unsigned index)
{
        return -((uint64_t)((index + TLB_ENTRIES / 2) & (TLB_ENTRIES - 1)) << 12);
}

/* What a place is of. */
#define TLB_GLOBAL 1u
#define TLB_LARGE  2u /* part of a page of 2 or 4 MiB */
#define TLB_HUGE   4u /* of 1 GiB */

#define LARGE_ENTRIES 1024u /* as many regions of 2 MiB */
#define HUGE_ENTRIES  4u

/* Which larger pages have parts in the TLB, whose places INVLPG takes away with whatever address
 * in them: by linear >> 21 and linear >> 30, each plus 1; 0 is free. */
struct larger_pages {
        uint64_t large[LARGE_ENTRIES], huge[HUGE_ENTRIES];
        unsigned next_huge;
};

#define SPACES      8u /* Linux uses six numbers */
#define SPACE_PAGES 32u
#define SPACE_JUMPS 64u

/* A place of a TLB, and one of the user's jump table, while another address space runs. */
struct saved_page {
        uint64_t linear; /* page | its context << 4 | SAVED_READ, SAVED_WRITE, SAVED_FETCH */
        uint8_t *host;
        uint64_t gpa; /* as in the TLB */
};
#define SAVED_READ  1u
#define SAVED_WRITE 2u
#define SAVED_FETCH 4u

struct block;
struct saved_jump {
        uint64_t linear;
        const struct block *block;
};

/* What is known of an address space that does not run, by its PCID; see spaces.c. */
struct space {
        uint64_t epoch; /* 0: free */
        uint64_t left;  /* when, by the order of switches */
        unsigned pages_length, jumps_length;
        uint16_t pcid;
        struct saved_page pages[SPACE_PAGES];
        struct saved_jump jumps[SPACE_JUMPS];
};

#define WRITER_SETS 4096u
#define WRITER_WAYS 4u

/* Which places of the TLBs let guest memory be written, by guest physical page: who
 * decodes a page need not look through all of them. 1 + context * TLB_ENTRIES + place;
 * 0 is free, and so is one whose place has another page meanwhile. */
struct writers {
        uint16_t places[WRITER_SETS][WRITER_WAYS];
        bool more[WRITER_SETS]; /* than fit */
};

#define PATH_ENTRIES 64u

/* Where the page table of 2 MiB of linear addresses is, and what the entries above it
 * allow: what processors call a paging-structure cache. All of them had been accessed. */
struct path {
        uint64_t key; /* linear >> 21 */
        uint64_t epoch;
        uint64_t table; /* guest physical */
        const uint8_t *host;
        bool writable, user, nx;
};
