/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Read first when the shim is built for a process that plays the kernel: there
 * these names are the C library's, so the kernel's go by others.
 */
#pragma redefine_extname malloc sim_malloc
#pragma redefine_extname free sim_free
#pragma redefine_extname printf sim_printf
#pragma redefine_extname panic sim_panic

/*
 * A program's linker drops sections that nothing refers to, linker sets among
 * them; the module's own link keeps them by its script.
 */
#include <sys/cdefs.h>
#undef __used
#define	__used	__attribute__((__used__, __retain__))
