"""The literature that a methods paragraph may cite, by key, and how it is written out.

>>> reference("kingma2014")
'Kingma, D. P. and Welling, M. (2014). Auto-Encoding Variational Bayes. International Conference \
on Learning Representations. arXiv:1312.6114'
>>> bibtex("xarray").splitlines()[0]
'@article{xarray,'
"""

from __future__ import annotations

ICLR = "International Conference on Learning Representations"

BIBTEX: dict[str, dict[str, str]] = {
    "mne": {
        "type": "article",
        "author": "Gramfort, Alexandre and Luessi, Martin and Larson, Eric and Engemann, Denis A. "
        "and Strohmeier, Daniel and Brodbeck, Christian and Goj, Roman and Jas, Mainak and "
        "Brooks, Teon and Parkkonen, Lauri and Hämäläinen, Matti S.",
        "title": "{MEG} and {EEG} data analysis with {MNE-Python}",
        "journal": "Frontiers in Neuroscience",
        "volume": "7",
        "pages": "267",
        "year": "2013",
        "doi": "10.3389/fnins.2013.00267",
    },
    "mne-bids": {
        "type": "article",
        "author": "Appelhoff, Stefan and Sanderson, Matthew and Brooks, Teon L. and van Vliet, "
        "Marijn and Quentin, Romain and Holdgraf, Chris and Chaumon, Maximilien and Mikulan, "
        "Ezequiel and Tavabi, Kambiz and Höchenberger, Richard and Welke, Dominik and Brunner, "
        "Clemens and Rockhill, Alexander P. and Larson, Eric and Gramfort, Alexandre and Jas, "
        "Mainak",
        "title": "{MNE-BIDS}: Organizing electrophysiological data into the {BIDS} format and "
        "facilitating their analysis",
        "journal": "Journal of Open Source Software",
        "volume": "4",
        "number": "44",
        "pages": "1896",
        "year": "2019",
        "doi": "10.21105/joss.01896",
    },
    "eeg-bids": {
        "type": "article",
        "author": "Pernet, Cyril R. and Appelhoff, Stefan and Gorgolewski, Krzysztof J. and "
        "Flandin, Guillaume and Phillips, Christophe and Delorme, Arnaud and Oostenveld, Robert",
        "title": "{EEG-BIDS}, an extension to the brain imaging data structure for "
        "electroencephalography",
        "journal": "Scientific Data",
        "volume": "6",
        "pages": "103",
        "year": "2019",
        "doi": "10.1038/s41597-019-0104-8",
    },
    "autoreject": {
        "type": "article",
        "author": "Jas, Mainak and Engemann, Denis A. and Bekhti, Yousra and Raimondo, Federico "
        "and Gramfort, Alexandre",
        "title": "Autoreject: Automated artifact rejection for {MEG} and {EEG} data",
        "journal": "NeuroImage",
        "volume": "159",
        "pages": "417--429",
        "year": "2017",
        "doi": "10.1016/j.neuroimage.2017.06.030",
    },
    "lof": {
        "type": "inproceedings",
        "author": "Breunig, Markus M. and Kriegel, Hans-Peter and Ng, Raymond T. and Sander, Jörg",
        "title": "{LOF}: Identifying density-based local outliers",
        "booktitle": "Proceedings of the 2000 ACM SIGMOD International Conference on Management "
        "of Data",
        "pages": "93--104",
        "year": "2000",
        "doi": "10.1145/342009.335388",
    },
    "fastica": {
        "type": "article",
        "author": "Hyvärinen, Aapo",
        "title": "Fast and robust fixed-point algorithms for independent component analysis",
        "journal": "IEEE Transactions on Neural Networks",
        "volume": "10",
        "number": "3",
        "pages": "626--634",
        "year": "1999",
        "doi": "10.1109/72.761722",
    },
    "infomax": {
        "type": "article",
        "author": "Lee, Te-Won and Girolami, Mark and Sejnowski, Terrence J.",
        "title": "Independent component analysis using an extended infomax algorithm for mixed "
        "subgaussian and supergaussian sources",
        "journal": "Neural Computation",
        "volume": "11",
        "number": "2",
        "pages": "417--441",
        "year": "1999",
        "doi": "10.1162/089976699300016719",
    },
    "picard": {
        "type": "article",
        "author": "Ablin, Pierre and Cardoso, Jean-François and Gramfort, Alexandre",
        "title": "Faster independent component analysis by preconditioning with {Hessian} "
        "approximations",
        "journal": "IEEE Transactions on Signal Processing",
        "volume": "66",
        "number": "15",
        "pages": "4040--4049",
        "year": "2018",
        "doi": "10.1109/TSP.2018.2844203",
    },
    "kingma2014": {
        "type": "inproceedings",
        "author": "Kingma, Diederik P. and Welling, Max",
        "title": "Auto-Encoding Variational {Bayes}",
        "booktitle": ICLR,
        "year": "2014",
        "eprint": "1312.6114",
    },
    "adam": {
        "type": "inproceedings",
        "author": "Kingma, Diederik P. and Ba, Jimmy",
        "title": "{Adam}: A Method for Stochastic Optimization",
        "booktitle": ICLR,
        "year": "2015",
        "eprint": "1412.6980",
    },
    "higgins2017": {
        "type": "inproceedings",
        "author": "Higgins, Irina and Matthey, Loic and Pal, Arka and Burgess, Christopher and "
        "Glorot, Xavier and Botvinick, Matthew and Mohamed, Shakir and Lerchner, Alexander",
        "title": "beta-{VAE}: Learning Basic Visual Concepts with a Constrained Variational "
        "Framework",
        "booktitle": ICLR,
        "year": "2017",
        "url": "https://openreview.net/forum?id=Sy2fzU9gl",
    },
    "burgess2018": {
        "type": "misc",
        "author": "Burgess, Christopher P. and Higgins, Irina and Pal, Arka and Matthey, Loic and "
        "Watters, Nick and Desjardins, Guillaume and Lerchner, Alexander",
        "title": "Understanding disentangling in beta-{VAE}",
        "year": "2018",
        "eprint": "1804.03599",
    },
    "higgins2018": {
        "type": "inproceedings",
        "author": "Higgins, Irina and Sonnerat, Nicolas and Matthey, Loic and Pal, Arka and "
        "Burgess, Christopher P. and Bosnjak, Matko and Shanahan, Murray and Botvinick, Matthew "
        "and Hassabis, Demis and Lerchner, Alexander",
        "title": "{SCAN}: Learning Hierarchical Compositional Visual Concepts",
        "booktitle": ICLR,
        "year": "2018",
        "eprint": "1707.03389",
    },
    "vincent2008": {
        "type": "inproceedings",
        "author": "Vincent, Pascal and Larochelle, Hugo and Bengio, Yoshua and Manzagol, "
        "Pierre-Antoine",
        "title": "Extracting and Composing Robust Features with Denoising Autoencoders",
        "booktitle": "Proceedings of the 25th International Conference on Machine Learning",
        "pages": "1096--1103",
        "year": "2008",
        "doi": "10.1145/1390156.1390294",
    },
    "honke2020": {
        "type": "misc",
        "author": "Honke, Garrett and Higgins, Irina and Thigpen, Nina and Miskovic, Vladimir and "
        "Link, Katie and Duan, Sunny and Gupta, Pramod and Klawohn, Julia and Hajcak, Greg",
        "title": "Representation learning for improved interpretability and classification "
        "accuracy of clinical factors from {EEG}",
        "year": "2020",
        "eprint": "2010.15274",
    },
    "xie2023": {
        "type": "article",
        "author": "Xie, Renjie and Xu, Wei and Yu, Jiabao and Hu, Aiqun and Ng, Derrick Wing Kwan "
        "and Swindlehurst, A. Lee",
        "title": "Disentangled Representation Learning for {RF} Fingerprint Extraction Under "
        "Unknown Channel Statistics",
        "journal": "IEEE Transactions on Communications",
        "year": "2023",
        "doi": "10.1109/TCOMM.2023.3268286",
    },
    "radford2021": {
        "type": "inproceedings",
        "author": "Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, "
        "Gabriel and Agarwal, Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela "
        "and Clark, Jack and Krueger, Gretchen and Sutskever, Ilya",
        "title": "Learning transferable visual models from natural language supervision",
        "booktitle": "International Conference on Machine Learning",
        "year": "2021",
    },
    "shirakawa2024": {
        "type": "misc",
        "author": "Shirakawa, Ken and Nagano, Yoshihiro and Tanaka, Misato and Aoki, Shuntaro C. "
        "and Majima, Kei and Muraki, Yusuke and Kamitani, Yukiyasu",
        "title": "Spurious reconstruction from brain activity",
        "year": "2024",
        "eprint": "2405.10078",
    },
    "scotti2023": {
        "type": "inproceedings",
        "author": "Scotti, Paul S. and Banerjee, Atmadeep and Goode, Jimmie and Shabalin, Stepan "
        "and Nguyen, Alex and Cohen, Ethan and Dempster, Aidan J. and Verlinde, Nathalie and "
        "Yundler, Elad and Weisberg, David and Norman, Kenneth A. and Abraham, Tanishq Mathew",
        "title": "Reconstructing the Mind's Eye: fMRI-to-Image with Contrastive Learning and "
        "Diffusion Priors",
        "booktitle": "Advances in Neural Information Processing Systems",
        "year": "2023",
        "eprint": "2305.18274",
    },
    "nsd": {
        "type": "article",
        "author": "Allen, Emily J. and St-Yves, Ghislain and Wu, Yihan and Breedlove, Jesse L. "
        "and Prince, Jacob S. and others",
        "title": "A massive {7T} {fMRI} dataset to bridge cognitive neuroscience and artificial "
        "intelligence",
        "journal": "Nature Neuroscience",
        "year": "2022",
    },
    "fmriprep": {
        "type": "article",
        "author": "Esteban, Oscar and Markiewicz, Christopher J. and Blair, Ross W. and others",
        "title": "{fMRIPrep}: a robust preprocessing pipeline for functional {MRI}",
        "journal": "Nature Methods",
        "year": "2019",
    },
    "mumford2012": {
        "type": "article",
        "author": "Mumford, Jeanette A. and Turner, Benjamin O. and Ashby, F. Gregory and "
        "Poldrack, Russell A.",
        "title": "Deconvolving {BOLD} activation in event-related designs for multivoxel pattern "
        "classification analyses",
        "journal": "NeuroImage",
        "year": "2012",
    },
    "wang2024wave": {
        "type": "misc",
        "author": "Wang, Yanchen and Turnbull, Adam and Xiang, Tiange and Xu, Yunlong and "
        "Zhou, Sa and Masoud, Adnan and Azizi, Shekoofeh and Lin, Feng Vankee and Adeli, Ehsan",
        "title": "Decoding Visual Experience and Mapping Semantics through Whole-Brain Analysis "
        "Using {fMRI} Foundation Models",
        "year": "2024",
        "eprint": "2411.07121",
    },
    "thomas2022": {
        "type": "inproceedings",
        "author": "Thomas, Armin W. and Ré, Christopher and Poldrack, Russell A.",
        "title": "Self-Supervised Learning of Brain Dynamics from Broad Neuroimaging Data",
        "booktitle": "Advances in Neural Information Processing Systems",
        "year": "2022",
        "eprint": "2206.11417",
    },
    "ortegacaro2024": {
        "type": "inproceedings",
        "author": "Ortega Caro, Josue and Fonseca, Antonio H. O. and others",
        "title": "{BrainLM}: A foundation model for brain activity recordings",
        "booktitle": ICLR,
        "year": "2024",
    },
    "haxby2001": {
        "type": "article",
        "author": "Haxby, James V. and Gobbini, M. Ida and Furey, Maura L. and Ishai, Alumit and "
        "Schouten, Jennifer L. and Pietrini, Pietro",
        "title": "Distributed and overlapping representations of faces and objects in ventral "
        "temporal cortex",
        "journal": "Science",
        "year": "2001",
    },
    "duan2020": {
        "type": "inproceedings",
        "author": "Duan, Sunny and Matthey, Loic and Saraiva, Andre and Watters, Nicholas and "
        "Burgess, Christopher P. and Lerchner, Alexander and Higgins, Irina",
        "title": "Unsupervised Model Selection for Variational Disentangled Representation "
        "Learning",
        "booktitle": ICLR,
        "year": "2020",
        "eprint": "1905.12614",
    },
    "bonheme2021": {
        "type": "misc",
        "author": "Bonheme, Lisa and Grzes, Marek",
        "title": "Be More Active! {Understanding} the Differences between Mean and Sampled "
        "Representations of Variational Autoencoders",
        "year": "2021",
        "eprint": "2109.12679",
    },
    "pytorch": {
        "type": "inproceedings",
        "author": "Paszke, Adam and Gross, Sam and Massa, Francisco and Lerer, Adam and Bradbury, "
        "James and Chanan, Gregory and Killeen, Trevor and Lin, Zeming and Gimelshein, Natalia "
        "and Antiga, Luca and Desmaison, Alban and Kopf, Andreas and Yang, Edward and DeVito, "
        "Zachary and Raison, Martin and Tejani, Alykhan and Chilamkurthy, Sasank and Steiner, "
        "Benoit and Fang, Lu and Bai, Junjie and Chintala, Soumith",
        "title": "{PyTorch}: An Imperative Style, High-Performance Deep Learning Library",
        "booktitle": "Advances in Neural Information Processing Systems 32",
        "pages": "8024--8035",
        "year": "2019",
        "eprint": "1912.01703",
    },
    "lightning": {
        "type": "software",
        "author": "Falcon, William and {The PyTorch Lightning team}",
        "title": "{PyTorch Lightning}",
        "year": "2019",
        "doi": "10.5281/zenodo.3828935",
    },
    "sklearn": {
        "type": "article",
        "author": "Pedregosa, Fabian and Varoquaux, Gaël and Gramfort, Alexandre and Michel, "
        "Vincent and Thirion, Bertrand and Grisel, Olivier and Blondel, Mathieu and Prettenhofer, "
        "Peter and Weiss, Ron and Dubourg, Vincent and Vanderplas, Jake and Passos, Alexandre and "
        "Cournapeau, David and Brucher, Matthieu and Perrot, Matthieu and Duchesnay, Édouard",
        "title": "Scikit-learn: Machine Learning in {Python}",
        "journal": "Journal of Machine Learning Research",
        "volume": "12",
        "pages": "2825--2830",
        "year": "2011",
        "url": "https://jmlr.org/papers/v12/pedregosa11a.html",
    },
    "xarray": {
        "type": "article",
        "author": "Hoyer, Stephan and Hamman, Joe",
        "title": "xarray: {N-D} labeled Arrays and Datasets in {Python}",
        "journal": "Journal of Open Research Software",
        "volume": "5",
        "number": "1",
        "pages": "10",
        "year": "2017",
        "doi": "10.5334/jors.148",
    },
    "zarr": {
        "type": "software",
        "author": "Miles, Alistair and {The Zarr developers}",
        "title": "zarr-python",
        "year": "2020",
        "doi": "10.5281/zenodo.3773449",
    },
    "exca": {
        "type": "software",
        "author": "Rapin, J. and King, J.-R.",
        "title": "Exca - Execution and caching",
        "year": "2024",
        "url": "https://github.com/facebookresearch/exca",
    },
    "numpy": {
        "type": "article",
        "author": "Harris, Charles R. and Millman, K. Jarrod and van der Walt, Stéfan J. and "
        "others",
        "title": "Array programming with {NumPy}",
        "journal": "Nature",
        "volume": "585",
        "pages": "357--362",
        "year": "2020",
        "doi": "10.1038/s41586-020-2649-2",
    },
    "scipy": {
        "type": "article",
        "author": "Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E. and others",
        "title": "{SciPy} 1.0: fundamental algorithms for scientific computing in {Python}",
        "journal": "Nature Methods",
        "volume": "17",
        "pages": "261--272",
        "year": "2020",
        "doi": "10.1038/s41592-019-0686-2",
    },
    "bootstrap": {
        "type": "book",
        "author": "Efron, Bradley and Tibshirani, Robert J.",
        "title": "An Introduction to the Bootstrap",
        "publisher": "Chapman and Hall",
        "year": "1993",
    },
    "permutation": {
        "type": "article",
        "author": "Phipson, Belinda and Smyth, Gordon K.",
        "title": "Permutation {P}-values should never be zero: calculating exact {P}-values when "
        "permutations are randomly drawn",
        "journal": "Statistical Applications in Genetics and Molecular Biology",
        "volume": "9",
        "number": "1",
        "pages": "39",
        "year": "2010",
        "doi": "10.2202/1544-6115.1585",
    },
    "holm": {
        "type": "article",
        "author": "Holm, Sture",
        "title": "A simple sequentially rejective multiple test procedure",
        "journal": "Scandinavian Journal of Statistics",
        "volume": "6",
        "number": "2",
        "pages": "65--70",
        "year": "1979",
    },
    "ledoit-wolf": {
        "type": "article",
        "author": "Ledoit, Olivier and Wolf, Michael",
        "title": "A well-conditioned estimator for large-dimensional covariance matrices",
        "journal": "Journal of Multivariate Analysis",
        "volume": "88",
        "number": "2",
        "pages": "365--411",
        "year": "2004",
        "doi": "10.1016/S0047-259X(03)00096-4",
    },
}


def bibtex(key: str) -> str:
    """Write the BibTeX entry of a key of `BIBTEX`.

    Parameters
    ----------
    key : str
        The citation key.

    Raises
    ------
    KeyError
        Where the key is not known.
    """
    entry = BIBTEX[key]
    fields = {name: value for name, value in entry.items() if name != "type"}
    if "eprint" in fields:
        fields["archivePrefix"] = "arXiv"
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items()]
    kind = "misc" if entry["type"] == "software" else entry["type"]
    return "\n".join([f"@{kind}{{{key},", ",\n".join(lines), "}"])


def reference(key: str) -> str:
    """Write a key of `BIBTEX` as one line of a list of references."""
    entry = BIBTEX[key]
    where = entry.get("journal") or entry.get("booktitle") or entry.get("publisher") or ""
    volume = ", ".join(entry[f] for f in ("volume", "pages") if f in entry).replace("--", "–")
    parts = [
        f"{_names(entry['author'])} ({entry['year']})",
        _bare(entry["title"]),
        f"{where} {volume}".strip(),
        _link(entry),
    ]
    return ". ".join(part for part in parts if part)


def _link(entry: dict[str, str]) -> str:
    if "doi" in entry:
        return f"doi:{entry['doi']}"
    return f"arXiv:{entry['eprint']}" if "eprint" in entry else entry.get("url", "")


def _names(authors: str) -> str:
    names = [_short(name) for name in authors.split(" and ")]
    if len(names) > 3 or names[-1] == "others":
        return f"{names[0]} et al."
    return " and ".join(names)


def _short(name: str) -> str:
    """Shorten the first names: "Kingma, Diederik P." -> "Kingma, D. P."."""
    last, comma, first = name.partition(", ")
    if not comma:
        return _bare(name)
    initials = ["-".join(f"{part[0]}." for part in name.split("-")) for name in first.split()]
    return f"{last}, {' '.join(initials)}"


def _bare(text: str) -> str:
    return text.replace("{", "").replace("}", "")
