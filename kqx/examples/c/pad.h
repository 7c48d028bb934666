/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Makes a pad, and maps its first page of words.
 */
#include <sys/types.h>
#include <sys/mman.h>
#include <err.h>
#include <fcntl.h>
#include <unistd.h>

#include <sys/kqx.h>

static inline struct kqx_word *
pad_open(int *fd)
{
	void *words;

	if ((*fd = open(KQX_DEVICE, O_RDWR | O_CLOEXEC)) == -1)
		err(1, "%s (kldload kqx?)", KQX_DEVICE);
	words = mmap(NULL, (size_t)getpagesize(), PROT_READ | PROT_WRITE,
	    MAP_SHARED, *fd, 0);
	if (words == MAP_FAILED)
		err(1, "mmap");
	return (words);
}
